"""The map of the benchmarks names each file, and nothing else."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_the_map_has_one_line_per_benchmark() -> None:
    text = (FOLDER / "README.md").read_text()
    named = re.findall(r"^\| \[`(\w+\.py)`\]\(\1\) \|", text, re.M)
    assert sorted(named) == sorted(path.name for path in FOLDER.glob("*.py"))
    for page in re.findall(r"\]\((\.\./[\w/.]+)\)", text):
        assert (FOLDER / page).exists(), page

"""Documents say what the program measured and what the code does."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tables

from cpsam.cli import VERBS
from cpsam.config.plan_file import read_plan
from cpsam.report.results import read_results
from cpsam.study.conduct import conduct

ROOT = Path(__file__).parent.parent
MY_NET = """
from torch import nn


class MyNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))
"""
MY_DATA = """
import numpy as np
from PIL import Image


class Shapes:
    def __init__(self, split):
        self.split = split

    def __len__(self):
        return 20 if self.split == "train" else 9

    def __getitem__(self, index):
        pixels = np.full((12, 11, 3), 40, np.uint8)
        pixels[..., index % 3] = 200
        return Image.fromarray(pixels), index % 3
"""


@pytest.mark.parametrize("path", tables.documents(), ids=lambda path: path.name)
def test_tables_are_those_of_the_results_files(path: Path) -> None:
    assert tables.updated(path) == path.read_text(), "stale: run `make tables`"


def test_reports_are_those_of_the_results_files() -> None:
    written = tables.reports()
    assert len(written) >= 2 * 5
    for path, text in written.items():
        assert path.read_bytes() == text.encode(), f"{path} is stale: run `make tables`"


def test_the_readme_shows_the_house_as_it_is() -> None:
    tree = re.search(r"```\nsrc/cpsam/\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert tree is not None
    named = {line.split()[0].rstrip("/") for line in tree[1].splitlines() if line.startswith("  ")}
    package = ROOT / "src" / "cpsam"
    there = {
        path.name
        for path in package.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"__init__.py"}
    assert named == there


def test_the_example_on_the_page_on_studies_compares_objects(tmp_path: Path) -> None:
    checking, studies = (
        (ROOT / "docs" / name).read_text() for name in ("check_attention.md", "study.md")
    )
    (script,) = re.findall(r"^```python\n(.*?)^```$", studies, re.S | re.M)
    block = re.findall(r"^```python\n(.*?)^```$", checking, re.S | re.M)[:3:2]
    (tmp_path / "my_block.py").write_text("\n\n".join(block))
    (tmp_path / "my_net.py").write_text(MY_NET)
    (tmp_path / "my_data.py").write_text(MY_DATA)
    script = script.replace("epochs=8", "epochs=1").replace("seeds=3", "seeds=1, runs_at_once=1")
    (tmp_path / "my_study.py").write_text(script)
    words = [sys.executable, "my_study.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    results = read_results(tmp_path / "runs" / "mine")
    assert results.answer in done.stdout and (tmp_path / "report.html").is_file()
    mine = results.by_name["mine"]
    assert (mine.places, mine.parameters_added) == (
        ("body.0", "body.1"),
        2 * (8 * 16 * 2 + 8 + 16),
    )
    assert all(run.done for arm in results.arms for run in arm.runs)


def test_the_page_on_checking_a_block_shows_what_its_code_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    blocks = re.findall(
        r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "check_attention.md").read_text(), re.S | re.M
    )
    (tmp_path / "my_block.py").write_text(
        "\n\n".join(text for language, text in blocks if language == "python")
    )
    monkeypatch.syspath_prepend(tmp_path)
    my_block = importlib.import_module("my_block")
    assert capsys.readouterr().out == "".join(
        text for language, text in blocks if language == "text"
    )
    my_block.test_mean_context()


def test_every_command_of_the_readme_parses() -> None:
    """Each ``cpsam VERB --flag`` of the README exists."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.S | re.M)
    code = "".join(text for language, text in blocks if not language)
    commands = re.findall(r"^cpsam (\w+)((?:.*\\\n)*.*)$", code, re.M)
    assert commands
    for verb, rest in commands:
        assert verb in VERBS
        source = "".join(
            (ROOT / "src/cpsam" / name).read_text()
            for name in (f"cli/{verb}.py", "config/study.py", "config/task.py", "config/recipe.py")
        )
        for flag in re.findall(r"--([a-z-]+)", rest):
            assert flag.replace("-", "_") in source, f"cpsam {verb} --{flag}"


def test_the_plan_on_the_page_on_studies_is_carried_out_and_leaves_the_files_that_it_names(
    tmp_path: Path,
) -> None:
    text = (ROOT / "docs" / "study.md").read_text()
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", text, re.S | re.M)
    (tmp_path / "plan.toml").write_text(
        shown.replace("epochs = 8", "epochs = 1").replace("[0, 1, 2, 3, 4, 5]", "[0]")
    )
    folder = tmp_path / "RUNS" / "blocks"
    results = conduct(read_plan(tmp_path / "plan.toml"), folder)
    assert [arm["arm"] for arm in results["arms"]] == [
        "none",
        "non_local",
        "cpsam",
        "wide",
        "conv_control",
        "none",
        "squeeze_excite",
        "cpsam",
    ]
    assert results["warnings"] == []
    assert all(run["status"] == "done" for arm in results["arms"] for run in arm["runs"])
    table = text[text.index("| file in") :]
    named = set(re.findall(r"`([\w]+\.(?:html|md|csv|jsonl?))`", table))
    files = {
        path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    }
    in_runs = {
        path.name
        for run in folder.iterdir()
        if run.is_dir()
        for path in run.glob("*.json*")
        if not path.name.startswith(".")
    }
    assert named == files | in_runs


def test_the_default_comparison_separates_blocks_with_context_from_those_without() -> None:
    results = read_results(ROOT / "docs/results/cued-digits")
    assert {arm.arm for arm in results.arms} == {"none", "conv_control", "non_local", "cpsam"}
    for arm in results.arms:
        found = arm.top1_by_seed.values()
        assert len(found) == 3
        if arm.arm in ("none", "conv_control"):
            assert max(found) <= 0.55
        else:
            assert min(found) >= 0.9

"""The code of the tutorial runs from its first line to its last, on small pictures."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"


def write_pictures(root: Path) -> None:
    draw = np.random.default_rng(0)
    for index, flower in enumerate(("daisy", "rose", "tulip")):
        (root / flower).mkdir(parents=True)
        for number in range(14):
            pixels = draw.integers(0, 128, (40, 36, 3)) + 60 * index
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(root / flower / f"{number}.png")


def test_the_tutorial_runs(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    network, block, *script = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
    (tmp_path / "my_parts.py").write_text(f"{network}\n\n{block}")
    (tmp_path / "script.py").write_text("\n".join(script))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mean" in done.stdout and (tmp_path / "report.html").is_file()
    assert (tmp_path / "runs" / "final" / "weights.safetensors").is_file()

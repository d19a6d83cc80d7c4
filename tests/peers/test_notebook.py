"""The package in an empty environment: installed as a user does, and used in a notebook."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK_NEEDS = ("nbclient", "ipykernel")
CELLS = [
    """
import cpsam
import torch
from torch import nn

class MyBlock(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)

    def forward(self, x):
        return x + self.conv(x)

class MyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, padding=1), nn.ReLU())
        self.layer3 = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layer3(self.layer2(self.layer1(self.stem(x)))).mean((2, 3)))

class Noise(torch.utils.data.Dataset):
    def __init__(self, seed, count):
        draw = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (count, 3, 12, 10), dtype=torch.uint8, generator=draw)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 3

train_dataset, test_dataset = Noise(1, 30), Noise(2, 12)
""",
    """
results = cpsam.compare(
    {
        "none": None,
        "cpsam": "cpsam",
        "wide": lambda c: cpsam.CPSAM(c, reduction=4),
        "mine": MyBlock,
    },
    model=lambda: MyNet(), data=(train_dataset, test_dataset), at="layer3.*", epochs=1, seeds=3,
    folder="runs/mine")
results
""",
    "print(results.answer); print(results.table()); results.save('report.html')",
]
RUN = """
import sys
import nbclient
import nbformat

cells = [nbformat.v4.new_code_cell(cell) for cell in sys.stdin.read().split("# next cell")]
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, timeout=300).execute()
print(nbformat.writes(notebook))
"""


def pins() -> str:
    """Returns the versions of the lock, for each platform, without their hashes."""
    return "\n".join(
        re.findall(r"^[\w.-]+==[^\\\n]+", (ROOT / "requirements.lock").read_text(), re.M)
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment into which nothing but the package and a notebook was installed."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (folder / "pins.txt").write_text(pins())
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # pip would take what lies on our own path for installed.
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    needs = [ROOT, *NOTEBOOK_NEEDS]
    subprocess.run([*install, "-c", folder / "pins.txt", *needs], check=True, env=ours)
    return python


def test_the_example_runs_in_a_notebook(python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [python, "-c", RUN],
        input="# next cell".join(CELLS),
        cwd=tmp_path,
        env={
            "PATH": f"{python.parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "text/html" in done.stdout and "<table" in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "wide" in page

"""What the pages on data say: their commands parse, their example runs, their figures are those of
the code.
"""

import re
import shlex
from pathlib import Path

import pytest
from support.imagenet_tree import write_folder

from cpsam.cli import data, study, train
from cpsam.config.transform import Transform
from cpsam.data import load, parallel
from cpsam.data.sets.folder import STREAM_ABOVE_BYTES
from cpsam.data.storage.image_files import SUFFIXES, UNREAD_SUFFIXES

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), re.S | re.M)
    return [text for kind, text in found if kind == language]


def commands(page: str) -> list[list[str]]:
    text = "".join(blocks(page, "")).replace("\\\n", " ")
    found = re.findall(r"\bcpsam(?:\.cli)? ((?:data|train) .*)", text)
    return [shlex.split(line.partition(" > ")[0]) for line in found]


@pytest.mark.parametrize(("page", "count"), [("data.md", 4), ("scaling.md", 5)])
def test_the_commands_parse(page: str, count: int) -> None:
    found = commands(page)
    assert len(found) == count
    for verb, *words in found:
        assert data.VERB.read(words) if verb == "data" else train.VERB.read(words)


@pytest.mark.parametrize("page", ["data.md", "scaling.md"])
def test_every_flag_in_the_text_exists(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(), flags=re.S | re.M)
    spans = re.findall(r"`([^`]+)`", text)
    flags = {flag for span in spans for flag in re.findall(r"--[a-z-]+", span)}
    names = {flag[2:].removeprefix("no-").replace("-", "_") for flag in flags}
    assert names <= train.VERB.flags.keys() | study.VERB.flags.keys()


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "DATA", classes=5, train=6, validation=1)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("data.md", "python")
    exec(compile(code, "docs/data.md", "exec"), {})


def test_figures_and_names_are_those_of_the_code() -> None:
    text = (DOCS / "data.md").read_text()
    assert all(f"`{name}`" in text for name in load.DATASETS)
    assert (
        STREAM_ABOVE_BYTES == 8 << 30
        and f"{STREAM_ABOVE_BYTES // (3 * 224 * 224):,} of 224x224" in text
    )
    assert parallel.MAX_WORKERS == 16 and "16 at most" in text
    assert (Transform().min_crop, Transform().test_crop) == (0.08, 0.875)
    assert ", ".join(UNREAD_SUFFIXES) in text and ", ".join(SUFFIXES) in text
    assert (
        1_281_167 % 256 == 143
        and 143 // 2 == 71
        and "leave 143 over from batches of 256, enough for 71 processes" in text
    )

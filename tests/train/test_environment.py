"""The record of where a run was made."""

import shutil
import subprocess
from pathlib import Path

import pytest

import cpsam.train.environment
from cpsam.train.environment import commit

SOURCE = Path(cpsam.train.environment.__file__)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_source_that_runs() -> None:
    try:
        head = git(SOURCE.parent, "rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the source is not in a git checkout")
    found = commit(SOURCE.parent)
    assert found is not None
    assert found.removesuffix("+") == head


def test_a_copy_in_another_repository_has_no_commit_of_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    shutil.copy(SOURCE, tmp_path)
    assert commit(tmp_path) is None

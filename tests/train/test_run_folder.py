"""A folder that holds something else is refused, and no byte of it changes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.tiny import RECIPE, tiny_dataset, tiny_model
from support.tiny_runs import run

from cpsam.errors import DataError, UserError
from cpsam.train import Recipe
from cpsam.train.run_config import first_difference
from cpsam.train.train import train


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 6}, "seed is 5 there and 6 here"),
        (
            {"recipe": Recipe(epochs=4, batch_size=8, lr=0.06, precision="float32")},
            "recipe.epochs is 3 there and 4 here",
        ),
        ({"config": {"what": "another"}}, 'what is "tiny" there and "another" here'),
        ({"config": {"what": "tiny", "more": None}}, "more is missing there and null here"),
        ({"config": {}}, 'what is "tiny" there and missing here'),
        ({"dataset": tiny_dataset(train=31)}, "dataset.train is 29 there and 31 here"),
    ],
    ids=["seed", "recipe", "value", "added", "removed", "data"],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_configuration_is_refused(
    finished_run: Path, tmp_path: Path, change: dict[str, Any], says: str, finished: bool
) -> None:
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    if not finished:
        (tmp_path / "summary.json").unlink()
    before = content(tmp_path)
    call: dict[str, Any] = {
        "dataset": tiny_dataset(),
        "recipe": RECIPE,
        "seed": 5,
        "config": {"what": "tiny"},
        **change,
    }
    with pytest.raises(
        UserError, match=f"run folder {tmp_path} holds a run of another configuration: {says}$"
    ):
        train(
            tiny_model(),
            call.pop("dataset"),
            call.pop("recipe"),
            folder=tmp_path,
            device="cpu",
            **call,
        )
    assert content(tmp_path) == before


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(
        UserError, match=r"holds other files \('thesis.txt' first\) and no config.json"
    ):
        run(tmp_path)
    assert content(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run folder .*file is a file"):
        run(tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"run folder .*file/run cannot be written \(Not a directory\)"
    ):
        run(tmp_path / "file" / "run")


def test_hidden_files_and_notes_beside_a_run_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("")
    first = run(tmp_path)
    (tmp_path / "notes.txt").write_text("went well")
    assert run(tmp_path) == first


def test_numbers_that_are_equal_are_no_difference(tmp_path: Path) -> None:
    run(tmp_path, recipe=Recipe(epochs=1, batch_size=8, lr=1.0))
    assert run(tmp_path, recipe=Recipe(epochs=1, batch_size=8, lr=1))["epochs"] == 1
    assert first_difference({"a": [1, 2]}, {"a": [1, 2.0]}) is None
    assert first_difference({"a": True}, {"a": 1}) == ("a", "true", "1")


def test_a_damaged_configuration_is_told(tmp_path: Path) -> None:
    run(tmp_path)
    whole = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(whole[:-9])
    with pytest.raises(DataError, match=r"config\.json: not JSON"):
        run(tmp_path)
    assert json.loads(whole)["seed"] == 5

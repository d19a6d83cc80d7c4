"""Public names that a function shares with a room or a module."""

import importlib
from typing import Any

import pytest

import cpsam

CALLS: dict[str, dict[str, Any]] = {
    "train": {"model": 3, "data": None, "folder": "x"},
    "evaluate": {"model": cpsam.CPSAM(8)},
}


@pytest.mark.parametrize("name", CALLS)
def test_a_room_calls_the_function_of_its_name(name: str) -> None:
    room = importlib.import_module(f"cpsam.{name}")
    assert getattr(cpsam, name) is room and cpsam.train.schedule.__name__ == "cpsam.train.schedule"
    with pytest.raises(cpsam.UserError, match=r"model must be|is measured on data"):
        getattr(cpsam, name)(**CALLS[name])

"""What the calls from Python refuse, in one line that says what to give instead."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cpsam
from cpsam.errors import CpsamError

BLOCKS = {"none": None, "cpsam": "cpsam"}


class OwnNet(nn.Module):
    """A network that takes colour images only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 2}, "unknown argument of compare 'seed': did you mean 'seeds'?"),
        ({"image_sise": 32}, "did you mean 'image_size'?"),
        ({"data_rot": "x"}, "did you mean 'data_root'?"),
        ({"learning_rate": 1.0}, "did you mean 'lr'?"),
        ({"seeds": 2.0}, "seeds must be a number of seeds, or a list of seeds; got 2.0"),
        ({"seeds": "0"}, "seeds must be a number of seeds, or a list of seeds; got '0'"),
        ({"folder": None}, "folder must be a path; got None"),
        ({"model": OwnNet()}, "got a OwnNet object: give OwnNet, or lambda: OwnNet"),
        ({"blocks": {"mine": nn.ReLU()}}, "the block of mine is a ReLU object, and each place"),
        ({"primary": ("cpsam", "nope")}, "unknown arm of a contrast 'nope'"),
        ({"data": ([3], [4])}, "sample 0 of the train data must be (image, label); got int"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_argument_of_compare(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    call = {"blocks": BLOCKS, "folder": tmp_path, "progress": False, **changes}
    with pytest.raises(CpsamError) as refused:
        cpsam.compare(**call)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(cpsam.UserError, match="file is not a folder"):
        cpsam.compare(BLOCKS, folder=tmp_path / "file", progress=False)


def test_a_network_for_other_images_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(cpsam.UserError, match="the network cannot take images of 1x16x16"):
        cpsam.train(OwnNet(), "digits", folder=tmp_path / "run", progress=False)
    with pytest.raises(cpsam.UserError, match="unknown argument of train 'epoch'"):
        cpsam.train(OwnNet(), "digits", folder=tmp_path / "run", epoch=1, progress=False)
    assert not (tmp_path / "run").exists()


def test_the_costs_of_what_is_no_network() -> None:
    for wrong in (OwnNet, "resnet20"):
        with pytest.raises(cpsam.UserError, match=r"model must be a torch\.nn\.Module"):
            cpsam.cost(wrong, image_size=32)  # pyrefly: ignore


def test_one_number_is_a_square() -> None:
    costs = [cpsam.cost(OwnNet(), ["eca"], "conv", image_size=size) for size in (9, (9, 9))]
    assert costs[0].to_json()["costs"] == costs[1].to_json()["costs"]

"""What older versions stored is read: the last norm of a block was called ``batch_norm``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import save_checkpoint
from torch import Tensor, nn

from cpsam.attention import ATTENTION, CPSAM, ConvControl, NonLocal
from cpsam.checkpoint import load_checkpoint
from cpsam.identity import run_identity
from cpsam.insert import attention_config, insert_attention, insert_from_config
from cpsam.insert.old_names import BLOCKS, with_current_names
from cpsam.models import create_model, load_pretrained
from cpsam.testing import randomise
from cpsam.weights_file import load_weights, save_weights


class ForeignBlock(nn.Module):
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.batch_norm = nn.BatchNorm2d(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.batch_norm(x)


class Host(nn.Module):
    """Uses the old name itself, and a path that looks like that of an inserted block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.batch_norm = nn.BatchNorm2d(8)
        self.attention = nn.ModuleList([ForeignBlock(8)])
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.attention[0](self.batch_norm(self.conv(x))))


def old_state(model: nn.Module) -> dict[str, Tensor]:
    return {
        name.replace("post_norm", "batch_norm"): tensor
        for name, tensor in model.state_dict().items()
    }


def test_only_the_norms_of_inserted_blocks_of_ours_are_renamed() -> None:
    model = Host()
    insert_attention(model, ForeignBlock, at="last")
    insert_attention(model, NonLocal, at="last")
    insert_attention(model, CPSAM, at="conv")
    prefixes = ("", "model/", "average/")
    tensors = {p + name: tensor for p in prefixes for name, tensor in old_state(model).items()}
    wanted = {p + name: tensor for p in prefixes for name, tensor in model.state_dict().items()}
    found, notes = with_current_names(tensors, attention_config(model))
    assert list(found) == list(wanted)
    assert all(found[name] is tensors[old] for name, old in zip(found, tensors, strict=True))
    assert sum("batch_norm" in name for name in found) == 3 * 3 * 5
    assert notes == [
        "30 tensors have the name batch_norm of an older version, which is now post_norm"
    ]


def test_names_of_today_stay_and_give_no_note() -> None:
    model = Host()
    insert_attention(model, CPSAM, at="conv")
    state = model.state_dict()
    assert with_current_names(state, attention_config(model)) == (state, [])
    old = old_state(model)
    assert with_current_names(old, []) == (old, [])


def test_the_table_of_blocks_is_complete() -> None:
    blocks = {
        name: block(8, hidden_channels=8) if block is ConvControl else block(8)
        for name, block in ATTENTION.items()
    }
    with_post_norm = {name for name, block in blocks.items() if hasattr(block, "post_norm")}
    assert with_post_norm == BLOCKS


def rebuilt(tensors: dict[str, Tensor], meta: dict[str, Any]) -> nn.Module:
    model = create_model("resnet20", 7, attention="none")
    insert_from_config(model, meta["attention"])
    model.load_state_dict(tensors)
    return model


def through_weights(folder: Path, notes: list[str]) -> nn.Module:
    return rebuilt(*load_weights(folder / "weights.safetensors", notes.append))


def through_weights_of_a_run(folder: Path, notes: list[str]) -> nn.Module:
    model = create_model("resnet20", 7, attention="cpsam")
    notes += load_pretrained(model, folder, 7)
    return model


def through_a_checkpoint(folder: Path, notes: list[str]) -> nn.Module:
    checkpoint = load_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    notes += checkpoint.warnings
    names = {name.removeprefix("model/"): tensor for name, tensor in checkpoint.tensors.items()}
    return rebuilt(names, checkpoint.meta)


@pytest.mark.parametrize("door", [through_weights, through_weights_of_a_run, through_a_checkpoint])
def test_old_names_are_read_with_a_note(
    tmp_path: Path, door: Callable[[Path, list[str]], nn.Module]
) -> None:
    trained = randomise(create_model("resnet20", 7, attention="cpsam"))
    config = {"model": "resnet20", "data": {"mean": [0.5] * 3, "std": [0.2] * 3}, "seed": 0}
    meta = {"attention": attention_config(trained), "identity": run_identity(config)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    old = old_state(trained)
    save_weights(tmp_path / "weights.safetensors", old, meta)
    save_checkpoint(
        tmp_path / "checkpoints", 3, {f"model/{name}": tensor for name, tensor in old.items()}, meta
    )
    notes: list[str] = []
    model = door(tmp_path, notes)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), trained.state_dict().values(), strict=True)
    )
    assert [note for note in notes if "10 tensors have the name batch_norm" in note] == notes != []


def test_a_reader_from_python_gets_the_note_as_a_warning(tmp_path: Path) -> None:
    model = create_model("resnet20", 7, attention="cpsam")
    meta = {"attention": attention_config(model)}
    save_weights(tmp_path / "w.safetensors", old_state(model), meta)
    with pytest.warns(UserWarning, match="batch_norm of an older version"):
        load_weights(tmp_path / "w.safetensors")

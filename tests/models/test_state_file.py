from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cpsam.errors import DataError, UserError
from cpsam.models import create_model
from cpsam.models.state_file import read_state
from cpsam.models.weights import load_pretrained

STATE = {"conv.weight": torch.arange(30.0).reshape(2, 3, 5), "conv.bias": torch.tensor([1.5, -2.0])}


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(value, found[key]) for key, value in STATE.items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".pth.tar"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_torch_is_that_of_safetensors(tmp_path: Path, suffix: str, legacy: bool) -> None:
    save_file(STATE, tmp_path / "weights.safetensors")
    torch.save(STATE, tmp_path / f"weights{suffix}", _use_new_zipfile_serialization=not legacy)
    assert same(read_state(tmp_path / "weights.safetensors"))
    assert same(read_state(tmp_path / f"weights{suffix}"))


@pytest.mark.parametrize("envelope", ["state_dict", "model", "model_state_dict"])
def test_envelopes_and_prefixes_are_taken_off(tmp_path: Path, envelope: str) -> None:
    wrapped = {f"module._orig_mod.{key}": value for key, value in STATE.items()}
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, envelope: wrapped}, tmp_path / "checkpoint.pth")
    assert same(read_state(tmp_path / "checkpoint.pth"))


def test_a_prefix_that_some_keys_lack_belongs_to_the_model(tmp_path: Path) -> None:
    torch.save({"module.weight": torch.ones(1), "weight": torch.ones(1)}, tmp_path / "a.pth")
    assert read_state(tmp_path / "a.pth").keys() == {"module.weight", "weight"}


def test_a_network_takes_them(tmp_path: Path) -> None:
    model = create_model("resnet20", 7, attention="cpsam", seed=3)
    torch.save(create_model("resnet20", 7, seed=4).state_dict(), tmp_path / "bare.pth")
    assert load_pretrained(model, tmp_path / "bare.pth", 7) == []
    expected = create_model("resnet20", 7, seed=4)
    images = torch.randn(2, 3, 33, 35)
    assert torch.equal(model.eval()(images), expected.eval()(images))


def test_a_flipped_bit_is_found_though_torch_passes_over_it(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(STATE, path)
    data = bytearray(path.read_bytes())
    data[data.index(STATE["conv.weight"].numpy().tobytes()) + 50] ^= 1
    path.write_bytes(data)
    assert not same(torch.load(path, weights_only=True))
    with pytest.raises(DataError, match=r"weights\.pth: checksum of weights/data/\d does not fit"):
        read_state(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_cut_anywhere_is_an_error_with_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(STATE, path) if suffix == ".pth" else save_file(STATE, path)
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(UserError, match=f"weights{suffix}"):
            read_state(path)


def test_what_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    for content, words in (([torch.ones(2)], "got list"), ({"a": 1}, "got int at 'a'"), ({"state_dict": {0: torch.ones(1)}}, "at 0")):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(UserError, match=words):
            read_state(tmp_path / "a.pth")


def test_a_missing_file_and_one_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not found: .*none\.pth"):
        read_state(tmp_path / "none.pth")
    (tmp_path / "weights.npz").touch()
    with pytest.raises(UserError, match=r"must be one of \.safetensors, .*got .*weights\.npz"):
        read_state(tmp_path / "weights.npz")


def test_code_is_named_and_not_run(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2), "hook": torch.nn.Linear(2, 3)}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"model\.pth asks for torch\.nn\.modules\.linear\.Linear"):
        read_state(tmp_path / "model.pth")

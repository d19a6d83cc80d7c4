"""Which tensors of a file a network takes, what is said about it, and what is refused."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cpsam.errors import CpsamError, DataError, UserError
from cpsam.identity import run_identity
from cpsam.insert import attention_config
from cpsam.models import create_model, load_pretrained
from cpsam.weights_file import save_weights

State = dict[str, Tensor]
NAME, CLASSES = "resnet20", 7


@pytest.fixture(scope="module")
def state() -> State:
    return create_model(NAME, CLASSES, seed=4).state_dict()


def load(
    folder: Path, content: Any, classes: int = CLASSES, **options: Any
) -> tuple[nn.Module, list[str]]:
    """The network that takes a content, and what was said."""
    torch.save(content, folder / "w.pth")
    notes: list[str] = []
    return (
        create_model(
            NAME, classes, weights=folder / "w.pth", seed=3, on_note=notes.append, **options
        ),
        notes,
    )


def holds(model: nn.Module, state: State) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(
        torch.equal(own[key], value) for key, value in state.items()
    )


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def zeros(state: State) -> State:
    return {key: torch.zeros_like(value) for key, value in state.items()}


TRAINERS: dict[str, Callable[[State], Any]] = {
    "the tutorials": lambda s: {
        "epoch": 3,
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}},
    },
    "timm": lambda s: {
        "arch": NAME,
        "state_dict": s,
        "args": argparse.Namespace(lr=0.1),
        "metric": 0.7,
    },
    "only the average": lambda s: {"state_dict_ema": s},
    "torchvision": lambda s: {
        "model": zeros(s),
        "model_ema": {"n_averaged": torch.ones(1), **prefixed("module.", s)},
        "epoch": 3,
    },
    "Lightning": lambda s: {
        "state_dict": {**prefixed("model.", s), "criterion.weight": torch.ones(7)},
        "hyper_parameters": {"lr": 0.1},
    },
    "Lightning, compiled": lambda s: {"state_dict": prefixed("model._orig_mod.", s)},
    "MMEngine": lambda s: {"meta": {"epoch": 3}, "state_dict": s, "message_hub": {}},
    "DeepSpeed": lambda s: {"module": s, "global_steps": 7},
    "torch.compile over DDP": lambda s: prefixed("_orig_mod.module.", s),
    "DDP over torch.compile": lambda s: prefixed("module._orig_mod.", s),
    "a module of a module": lambda s: prefixed("module.model.", s),
    "a compiled stage": lambda s: {
        key.replace("layer2.", "layer2._orig_mod."): value for key, value in s.items()
    },
    "a profiler": lambda s: {
        **s,
        "total_ops": torch.zeros(1),
        "layer1.0.total_params": torch.zeros(1),
    },
    "fastai": lambda s: {"model": s, "opt": {"state": [], "hypers": []}},
    "DINO": lambda s: {
        "teacher": prefixed("backbone.", s) | {"head.mlp.0.weight": torch.ones(3, 2)}
    },
    "twice the same": lambda s: {"state_dict": prefixed("net.", s) | prefixed("model.", s)},
    "deep": lambda s: {"checkpoint": {"networks": {"classifier": s}}},
    "counters beside them": lambda s: {**s, "epoch": 3, "best": 0.5},
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_weights_of_a_trainer_are_found(tmp_path: Path, state: State, trainer: str) -> None:
    model, notes = load(tmp_path, TRAINERS[trainer](state))
    assert holds(model, state)
    assert bool(notes) == (trainer != "a compiled stage")


def test_the_average_is_taken_and_the_others_can_be(tmp_path: Path, state: State) -> None:
    content = {"state_dict": zeros(state), "state_dict_ema": state}
    model, notes = load(tmp_path, content)
    assert holds(model, state)
    assert (
        notes[0]
        == "weights: state_dict_ema is taken, the average; weights_key chooses state_dict instead"
    )
    assert holds(load(tmp_path, content, weights_key="state_dict")[0], zeros(state))
    with pytest.raises(
        UserError, match="has nothing named 'emma'; it has state_dict, state_dict_ema"
    ):
        load(tmp_path, content, weights_key="emma")


def test_a_key_without_weights_is_refused() -> None:
    with pytest.raises(
        UserError,
        match="weights_key says which weights of a file to take; got 'ema' and no weights",
    ):
        create_model(NAME, CLASSES, weights_key="ema")


def test_of_two_networks_one_must_be_named(tmp_path: Path, state: State) -> None:
    content = {
        "state_dict": (
            prefixed("module.encoder_q.", state) | prefixed("module.encoder_k.", zeros(state))
        )
    }
    with pytest.raises(
        UserError,
        match=(
            r"several weights .*state_dict\.module\.encoder_k, state_dict\.module\.encoder_q;"
            r" name one"
        ),
    ):
        load(tmp_path, content)
    assert holds(load(tmp_path, content, weights_key="encoder_q")[0], state)


@pytest.mark.parametrize("classes", [5, 7])
def test_a_classifier_that_the_file_lacks_or_has_for_other_classes_starts_anew(
    tmp_path: Path, state: State, classes: int
) -> None:
    fresh = create_model(NAME, classes, seed=3).state_dict()
    bare = {key: value for key, value in state.items() if not key.startswith("fc.")}
    for content in (
        bare,
        {**bare, "fc.0.weight": torch.ones(4, 64)},
        {**bare, "fc.weight": torch.ones(9, 64), "fc.bias": torch.ones(9)},
    ):
        model, notes = load(tmp_path, content, classes)
        assert holds(model, {**bare, "fc.weight": fresh["fc.weight"], "fc.bias": fresh["fc.bias"]})
        assert any(note.startswith("weights: classifier fc starts anew: ") for note in notes)


def changed(state: State, **tensors: Tensor | None) -> State:
    new = {**state, **{key.replace("__", "."): value for key, value in tensors.items()}}
    return {key: value for key, value in new.items() if value is not None}


REFUSED: dict[str, Callable[[State], Any]] = {
    r"lacks 1 key \(layer2\.0\.conv1\.weight\)": lambda s: changed(
        s, layer2__0__conv1__weight=None
    ),
    r"has 1 key that the model has not \(extra\.weight\)": lambda s: changed(
        s, extra__weight=torch.ones(3)
    ),
    r"1 key in another shape \(bn1\.weight: \(5,\) for \(16,\)\)": lambda s: changed(
        s, bn1__weight=torch.ones(5)
    ),
    r"lacks 1 key \(fc\.bias\)": lambda s: changed(s, fc__bias=None),
    r"\(conv1\.weight\), has 1 key that the model has not \(conv1\.weight_orig\)": lambda s: {
        "conv1.weight_orig" if key == "conv1.weight" else key: value for key, value in s.items()
    },
    r"has 2 keys that the model has not \('', 'a\\n\\x1b\[31m'\)": lambda s: {
        **s,
        "": torch.ones(1),
        "a\n\x1b[31m": torch.ones(1),
    },
    r"fc\.weight: \(7, 32\) for \(7, 64\)": lambda s: changed(s, fc__weight=torch.ones(7, 32)),
    "take images of 1 channel, and the model takes 3": lambda s: changed(
        s, conv1__weight=torch.ones(16, 1, 3, 3)
    ),
    r"has 1 key in another shape \(fc\.bias: \(9,\) for \(7,\)\)": lambda s: changed(
        s, fc__bias=torch.ones(9)
    ),
    r"do not fit the model: it lacks 1 key \(fc\.weight\)$": lambda s: changed(s, fc__weight=None),
    "layer1.0.bn1.running_var holds 16 of 16 numbers that are not finite": lambda s: changed(
        s, layer1__0__bn1__running_var=torch.full((16,), torch.nan)
    ),
    "bn1.running_var must not be negative; 16 of its 16 numbers are": lambda s: changed(
        s, bn1__running_var=-torch.ones(16)
    ),
    "bn1.num_batches_tracked must not be negative": lambda s: changed(
        s, bn1__num_batches_tracked=torch.tensor(-3)
    ),
    "bn1.num_batches_tracked holds 1 of 1 numbers": lambda s: changed(
        s, bn1__num_batches_tracked=torch.tensor(torch.nan)
    ),
    "conv1.weight holds 2 of 432 numbers that are not finite": lambda s: changed(
        s,
        conv1__weight=s["conv1.weight"].masked_fill(
            torch.arange(432).view(16, 3, 3, 3) < 2, torch.nan
        ),
    ),
    "bn1.weight holds 16 of 16 numbers": lambda s: changed(
        s, bn1__weight=torch.full((16,), 1e300, dtype=torch.float64)
    ),
    "conv1.weight holds int8 numbers, and the model has float32": lambda s: changed(
        s, conv1__weight=torch.ones(16, 3, 3, 3).to(torch.int8)
    ),
    "bn1.weight holds complex64 numbers": lambda s: changed(
        s, bn1__weight=torch.ones(16, dtype=torch.complex64)
    ),
    "bn1.weight must be a plain tensor": lambda s: changed(
        s, bn1__weight=torch.ones(16).to_sparse()
    ),
    "without data": lambda s: changed(s, bn1__weight=torch.ones(16, device="meta")),
    "holds no tensors by name; it holds list": lambda s: list(s.values()),
    "holds no tensors by name; it has a .int.": lambda s: {"a": 1},
    "holds no tensors by name; it is empty": lambda s: {},
    "an object of torch.nn.modules.linear.Linear: save its state_dict": lambda s: nn.Linear(2, 3),
    r"model \(an object of torch.nn.modules.linear.Linear": lambda s: {
        "epoch": 3,
        "model": nn.Linear(2, 3),
    },
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    tmp_path: Path, state: State, words: str
) -> None:
    torch.save(REFUSED[words](state), tmp_path / "w.pth")
    model = create_model(NAME, CLASSES, seed=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CpsamError, match=words) as error:
        load_pretrained(model, tmp_path / "w.pth", CLASSES)
    assert "w.pth" in str(error.value) and "\n" not in str(error.value) and holds(model, before)
    assert error.value.exit_code == (2 if "do not fit" in str(error.value) else 3)


def test_an_error_names_three_keys_and_what_the_file_fits(tmp_path: Path) -> None:
    torch.save(create_model("resnet56", 10).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        UserError,
        match=r"has 144 keys .*\(layer1\.5\.\S+, \S+, \S+ and 141 more\); they fit resnet56$",
    ):
        create_model("resnet32", 7, weights=tmp_path / "w.pth")
    torch.save(torchvision.models.resnet34(num_classes=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        UserError,
        match=r", has 1 key in another shape \(conv1\.weight: .*they fit torchvision/resnet34$",
    ):
        create_model("resnet18", 7, weights=tmp_path / "w.pth")


def test_no_other_network_is_named_where_the_file_is_for_this_one(
    tmp_path: Path, state: State
) -> None:
    torch.save(changed(state, fc__bias=None), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"it lacks 1 key \(fc\.bias\)$"):
        create_model(NAME, CLASSES, weights=tmp_path / "w.pth")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"take images of 3 channels, and the model takes 1$"):
        create_model(NAME, CLASSES, in_channels=1, weights=tmp_path / "w.pth")


def test_a_network_with_and_without_a_prefix_is_in_doubt(tmp_path: Path, state: State) -> None:
    content = state | prefixed("module.", zeros(state))
    with pytest.raises(
        UserError,
        match=(
            r"several weights of this network: '\.' \(the keys without a prefix\), module; name one"
        ),
    ):
        load(tmp_path, content)
    assert holds(load(tmp_path, content, weights_key=".")[0], state)
    assert holds(load(tmp_path, content, weights_key="module")[0], zeros(state))
    assert holds(load(tmp_path, zeros(state) | prefixed("ema.", state))[0], state)


def test_what_lies_in_the_place_of_a_classifier_is_named(tmp_path: Path, state: State) -> None:
    bare = {key: value for key, value in state.items() if not key.startswith("fc.")}
    for content, key in (
        ({**prefixed("backbone.", bare), "head.fc.weight": state["fc.weight"]}, "head.fc.weight"),
        ({**bare, "fc.base_layer.weight": state["fc.weight"]}, "fc.base_layer.weight"),
    ):
        notes = load(tmp_path, content)[1]
        assert notes[-2:] == [
            "weights: classifier fc starts anew: the file has no fc.weight",
            f"weights: left out: 1 key ({key})",
        ]


def test_half_precision_is_said(tmp_path: Path, state: State) -> None:
    half = {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    }
    model, notes = load(tmp_path, half)
    assert next(model.parameters()).dtype == torch.float32 and notes == [
        "weights: the tensors are stored as float16"
    ]


def test_an_averaged_model_of_torch(tmp_path: Path, state: State) -> None:
    average = AveragedModel(create_model(NAME, CLASSES, seed=4)).state_dict()
    model, notes = load(tmp_path, average)
    assert holds(model, state) and notes == [
        "weights: the tensors are those at module",
        "weights: left out: 1 key (n_averaged)",
    ]


def test_a_densenet_of_older_torchvision(tmp_path: Path) -> None:
    own = torchvision.models.densenet121(num_classes=3).state_dict()
    old = {re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", key): value for key, value in own.items()}
    assert old.keys() != own.keys()
    torch.save(old, tmp_path / "d.pth")
    for library in ("torchvision", "timm"):
        assert holds(create_model(f"{library}/densenet121", 3, weights=tmp_path / "d.pth"), own)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inceptions_are_those_that_torchvision_builds_with_its_weights(
    tmp_path: Path, name: str
) -> None:
    """Their input is rescaled, and the auxiliary heads, for 1000 classes here, are left out."""
    theirs = getattr(torchvision.models, name)(
        init_weights=False, aux_logits=True, transform_input=True
    ).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    notes: list[str] = []
    mine = create_model(
        f"torchvision/{name}", 1000, weights=tmp_path / "w.pth", on_note=notes.append
    )
    x = torch.rand(2, 3, 107, 113)
    assert isinstance(mine.train()(x), Tensor)
    mine.load_state_dict(theirs.state_dict(), strict=False)
    with torch.inference_mode():
        assert torch.equal(mine.eval()(x), theirs(x))
    assert "no auxiliary heads here" in notes[0] and "left out: " in notes[1]
    assert create_model(f"torchvision/{name}", 7, weights=tmp_path / "w.pth").fc.out_features == 7


def run_folder(folder: Path, classes: int = CLASSES, **options: Any) -> tuple[Path, nn.Module]:
    """What a finished run leaves, as far as its weights go."""
    model = create_model(NAME, classes, seed=5, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    folder.mkdir()
    config = {
        "model": NAME,
        "data": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1]},
        "seed": folder.name,
    }
    about = {"attention": attention_config(model), "identity": run_identity(config)}
    save_weights(folder / "weights.safetensors", model.state_dict(), about)
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_run_starts_another_with_other_classes(tmp_path: Path, named: str) -> None:
    run, trained = run_folder(tmp_path / "run", attention="cpsam")
    notes: list[str] = []
    weights = run if named == "folder" else run / "weights.safetensors"
    model = create_model(NAME, 11, attention="cpsam", weights=weights, seed=3, on_note=notes.append)
    old = {key: value for key, value in trained.state_dict().items() if not key.startswith("fc.")}
    assert any(".attention." in key for key in old) and all(
        torch.equal(model.state_dict()[key], value) for key, value in old.items()
    )
    assert torch.equal(model.fc.weight, create_model(NAME, 11, seed=3).fc.weight)
    assert notes == ["weights: classifier fc starts anew: 7 classes in the file, 11 wanted"]


@pytest.mark.parametrize(
    "asked",
    [{"attention": "none"}, {"attention": "non_local"}, {"attention": "cpsam", "at": "early"}],
)
def test_a_run_with_other_blocks_is_refused(tmp_path: Path, asked: dict[str, str]) -> None:
    run, _ = run_folder(tmp_path / "run", attention="cpsam")
    with pytest.raises(
        UserError,
        match=(
            r"those of a run with cpsam at layer2\.1, layer3\.1, and the model has .*: ask for the"
            r" same"
        ),
    ):
        create_model(NAME, CLASSES, weights=run, **asked)


def test_a_bare_run_takes_any_block(tmp_path: Path) -> None:
    run, trained = run_folder(tmp_path / "run")
    notes: list[str] = []
    model = create_model(
        NAME, CLASSES, attention="non_local", weights=run, on_note=notes.append
    ).eval()
    x = torch.randn(2, 3, 21, 19)
    assert torch.equal(model(x), trained.eval()(x)) and notes == [
        "weights: the blocks start anew: the file has none"
    ]


def test_a_run_of_another_network_or_none_is_refused(tmp_path: Path) -> None:
    run, _ = run_folder(tmp_path / "run")
    with pytest.raises(
        UserError, match="are those of a run of resnet20, not of resnet32: ask for resnet20"
    ):
        create_model("resnet32", CLASSES, weights=run)
    (run / "weights.safetensors").replace(run / "best.safetensors")
    with pytest.raises(
        UserError,
        match=r"is missing; name .*run/best\.safetensors to start from its best epoch so far",
    ):
        create_model(NAME, CLASSES, weights=run)
    create_model(NAME, CLASSES, weights=run / "best.safetensors")
    (run / "best.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"the run in .*run is not finished: weights\.safetensors is missing"
    ):
        create_model(NAME, CLASSES, weights=run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError,
        match=(
            r"empty is a folder without weights\.safetensors, model\.safetensors,"
            r" pytorch_model\.bin"
        ),
    ):
        create_model(NAME, CLASSES, weights=tmp_path / "empty")


def test_weights_of_another_run_or_tool_in_a_run_folder_are_refused(tmp_path: Path) -> None:
    run, _ = run_folder(tmp_path / "run", attention="cpsam")
    other, trained = run_folder(tmp_path / "other", attention="cpsam")
    config = (run / "config.json").read_text()
    (other / "weights.safetensors").replace(run / "weights.safetensors")
    with pytest.raises(
        DataError,
        match=(
            r"run/weights\.safetensors: it is of another run: its identity is not that of"
            r" config\.json"
        ),
    ):
        create_model(NAME, CLASSES, attention="cpsam", weights=run)
    save_file(trained.state_dict(), run / "weights.safetensors")
    with pytest.raises(
        DataError,
        match="are not those that the run in this folder wrote: they do not name its blocks",
    ):
        create_model(NAME, CLASSES, attention="cpsam", weights=run)
    save_weights(
        run / "weights.safetensors", trained.state_dict(), {"attention": attention_config(trained)}
    )
    assert (run / "config.json").read_text() == config
    # as older versions wrote them
    assert holds(create_model(NAME, CLASSES, attention="cpsam", weights=run), trained.state_dict())


def test_a_network_of_ones_own_in_timm_takes_weights(tmp_path: Path) -> None:
    """Registered without a configuration, as in the documents: the classifier is the last layer
    with as many outputs as classes.
    """

    @timm.models.register_model
    def a_small_network(
        pretrained: bool = False, num_classes: int = 10, in_chans: int = 3, **kwargs: Any
    ) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(in_chans, 5, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, num_classes),
        )

    save_file(a_small_network(num_classes=4).state_dict(), tmp_path / "w.safetensors")
    notes: list[str] = []
    create_model(
        "timm/a_small_network", 7, weights=tmp_path / "w.safetensors", on_note=notes.append
    )
    assert notes == ["weights: classifier 3 starts anew: 4 classes in the file, 7 wanted"]


def test_weights_for_images_of_other_channels_are_named_as_such(tmp_path: Path) -> None:
    save_file(create_model("resnet20", 10).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"take images of 3 channels, and the model takes 1$"):
        create_model("resnet20", 10, in_channels=1, weights=tmp_path / "w.safetensors")

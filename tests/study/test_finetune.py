"""The commonest use: a pretrained network of timm, weights from a file, a person's own pictures in
a folder a class.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.compare_command import compare

import cpsam.study.conduct as study_conduct
from cpsam.config.recipe import Recipe
from cpsam.config.study import Comparison, Setting, Study
from cpsam.config.task import Task
from cpsam.config.transform import Transform
from cpsam.errors import UserError
from cpsam.models import create_model, load_pretrained
from cpsam.run.data import LoadedTask, load_task
from cpsam.run.events import OnEvent
from cpsam.run.spec import RunSpec
from cpsam.study.conduct import opening
from cpsam.study.history import make_and_write_plan
from cpsam.study.run_reader import RunReader


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noise around a colour of their own, 61x47 pixels."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for label, colour in {
        "red": (200, 40, 40),
        "green": (40, 200, 40),
        "blue": (40, 40, 200),
    }.items():
        (root / label).mkdir()
        for index in range(10):
            pixels = np.clip(np.array(colour) + rng.integers(-40, 40, (47, 61, 3)), 0, 255).astype(
                np.uint8
            )
            Image.fromarray(pixels).save(root / label / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for a thousand classes, as it would come from a hub."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    torch.manual_seed(1)
    save_file(timm.create_model("resnet18").state_dict(), path)
    return path


def test_a_folder_of_pictures_with_pretrained_weights(
    pictures: Path, weights: Path, tmp_path: Path
) -> None:
    task = Task(
        data="folder", data_root=pictures, image_size=48, model="timm/resnet18", weights=weights
    )
    arms = ("none", "non_local", "cpsam")
    results = compare(
        Comparison(
            task=task,
            attention=arms,
            seeds=(0,),
            recipe=Recipe(epochs=1, batch_size=8, lr=0.01),
            out=tmp_path,
        )
    )
    assert [arm["runs"][0]["status"] for arm in results["arms"]] == ["done"] * 4
    assert results["arms"][1]["places"] == ["layer2.0", "layer3.0", "layer4.0"]
    assert results["data"]["classes"] == 3


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (1000, ["classifier fc starts anew: 1000 classes in the file, 10 wanted"]),
        (10, ["its classifier is kept"]),
    ],
)
def test_what_becomes_of_the_classifier_is_said_at_once(
    classes: int, words: list[str], tmp_path: Path
) -> None:
    save_file(
        create_model("resnet20", classes, in_channels=1).state_dict(), tmp_path / "w.safetensors"
    )
    task = Task(weights=tmp_path / "w.safetensors")
    study = Study(name="", settings=(Setting("", task, ("none",)),), seeds=(0,))
    plan, _ = make_and_write_plan(study, RunReader(tmp_path), lambda event: None)
    (setting,) = opening(plan, RunReader(tmp_path), 1)["settings"]
    assert setting["heads"] == words


def test_all_arms_start_from_the_pretrained_network(weights: Path) -> None:
    """Bit by bit the same features, whatever is inserted; the classifier, for other classes, is new
    and the same for all arms of a seed.
    """
    x = torch.randn(2, 3, 45, 67)
    reference = timm.create_model("resnet18").eval()
    reference.load_state_dict(load_file(weights))
    models = [
        create_model("timm/resnet18", 7, attention=name, weights=weights, seed=3).eval()
        for name in ("none", "non_local", "cpsam")
    ]
    with torch.inference_mode():
        features = reference.forward_features(x)
        assert all(torch.equal(model.forward_features(x), features) for model in models)
        logits = [model(x) for model in models]
    assert all(torch.equal(logits[0], other) for other in logits)


def test_pixels_are_scaled_as_the_pretrained_network_expects(pictures: Path, weights: Path) -> None:
    task = Task(
        data="folder", data_root=pictures, image_size=48, model="timm/resnet18", weights=weights
    )
    loaded = load_task(task, lambda event: None)
    assert loaded.dataset.mean == tuple(timm.get_pretrained_cfg("resnet18").mean)
    assert loaded.weights_sha256 is not None and len(loaded.weights_sha256) == 64


def test_each_run_trains_on_the_data_of_its_own_setting(
    pictures: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the same files: at two sizes, otherwise cropped, and read at once with and without a
    pretrained network.
    """
    given: dict[str, LoadedTask] = {}

    def seen(spec: RunSpec, loaded: LoadedTask, folder: Path, on_event: OnEvent) -> dict[str, Any]:
        given[spec.folder_name] = loaded
        return {}

    monkeypatch.setattr(study_conduct, "train_run", seen)
    small = Task(
        data="folder",
        data_root=pictures,
        image_size=32,
        model="timm/resnet18",
        stream=True,
        workers=0,
    )
    tasks = {
        "small": small,
        "large": replace(small, image_size=48),
        "cropped": replace(small, transform=Transform(test_crop=0.5)),
        "read": replace(small, stream=False),
        "pretrained": replace(small, stream=False, weights=weights),
    }
    settings = tuple(Setting(name, task, ("non_local", "cpsam")) for name, task in tasks.items())
    recipe = Recipe(epochs=1)
    study = Study(name="ways", settings=settings, seeds=(0,), recipe=recipe, control=False)
    plan, _ = make_and_write_plan(study, RunReader(tmp_path), lambda event: None)
    execute = study_conduct.train_here(plan)
    for arm in plan.arms:
        (spec,) = arm.specs
        execute(spec, tmp_path, lambda event: None)
        assert given[spec.folder_name] is plan.loaded[arm.setting], arm.setting


def test_weights_that_do_not_fit_are_refused_with_the_keys(weights: Path, tmp_path: Path) -> None:
    state = load_file(weights)
    model = timm.create_model("resnet18", num_classes=7)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def refused(changed: dict[str, torch.Tensor], *words: str) -> None:
        path = tmp_path / "changed.safetensors"
        save_file(changed, path)
        with pytest.raises(UserError) as error:
            load_pretrained(model, path, 7)
        assert all(word in str(error.value) for word in words), error.value
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    refused(
        {key: value for key, value in state.items() if key != "layer2.0.conv1.weight"},
        "lacks 1 key ",
        "layer2.0.conv1.weight",
    )
    refused({**state, "extra.weight": torch.zeros(3)}, "extra.weight")
    refused(
        {**state, "layer1.0.bn1.weight": torch.zeros(5)}, "another shape", "layer1.0.bn1.weight"
    )

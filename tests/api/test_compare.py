"""Comparisons from Python: blocks, networks and data as objects."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.compare_command import compare as compare_names
from torch import Tensor, nn

import cpsam
from cpsam.config.recipe import Recipe
from cpsam.config.study import Comparison


class MyBlock(nn.Module):
    """A block that keeps no argument, as people write them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale(x)


class MyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer3 = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 1))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer3(self.stem(x).relu()).relu().mean((2, 3)))


class Colours(torch.utils.data.Dataset[tuple[Any, int]]):
    """Three classes of noise around a colour."""

    def __init__(self, count: int, seed: int, kind: str = "pil") -> None:
        self.count, self.seed, self.kind = count, seed, kind

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        label = index % 3
        rng = np.random.default_rng([self.seed, index])
        pixels = rng.integers(0, 120, (10, 12, 3)).astype(np.uint8)
        pixels[..., label] += 100
        forms = {
            "pil": Image.fromarray(pixels),
            "array": pixels,
            "bytes": torch.from_numpy(pixels).permute(2, 0, 1),
            "floats": torch.from_numpy(pixels).permute(2, 0, 1) / 255 - 0.5,
        }
        return forms[self.kind], label


def data(kind: str = "pil") -> tuple[Colours, Colours]:
    return Colours(24, 0, kind), Colours(9, 1, kind)


def ask(folder: Path, **changes: Any) -> cpsam.Results:
    blocks = {
        "none": None,
        "cpsam": "cpsam",
        "wide": lambda c: cpsam.CPSAM(c, reduction=4),
        "mine": MyBlock,
    }
    options: dict[str, Any] = {"blocks": blocks, "model": lambda: MyNet(), "data": data()}
    options |= {"at": "layer3.*", "seeds": 2, "epochs": 1, "batch_size": 8, "runs_at_once": 1}
    return cpsam.compare(**options | {"folder": str(folder), "progress": False} | changes)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, cpsam.Results]:
    folder = tmp_path_factory.mktemp("mine")
    return folder, ask(folder)


def folders(results: cpsam.Results) -> dict[str, list[str]]:
    return {arm.name: [run.folder for run in arm.runs] for arm in results.arms}


def test_objects_are_compared_as_names_are(asked: tuple[Path, cpsam.Results]) -> None:
    folder, results = asked
    assert [arm.name for arm in results.arms] == ["none", "cpsam", "wide", "mine"]
    assert results.arms[3].places == ("layer3.0", "layer3.1")
    assert results.arms[3].parameters_added == 2 * (16 * 16 + 16)
    assert results.primary == ("mine", "none")
    assert all(run.status == "done" for arm in results.arms for run in arm.runs)
    assert results.data.name == "Colours" and results.data.train_images == 24
    assert cpsam.read_results(folder).answer == results.answer


def test_the_same_call_reads_the_runs_and_a_changed_object_makes_other_runs(
    asked: tuple[Path, cpsam.Results],
) -> None:
    folder, first = asked
    events: list[dict[str, Any]] = []
    again = ask(folder, on_event=events.append)
    assert folders(again) == folders(first)
    assert all(event["read"] for event in events if event["event"] == "finished")

    class MyBlock(nn.Identity):
        """Another class under the same name."""

    changed = folders(ask(folder, blocks={"none": None, "mine": MyBlock}, seeds=1))
    assert changed["none"] == folders(first)["none"][:1]
    assert changed["mine"][0] not in folders(first)["mine"]


def test_names_have_the_folders_of_the_command(tmp_path: Path) -> None:
    options = {"seeds": (0,), "recipe": Recipe(epochs=1), "threads": 1}
    names = ("none", "cpsam:fusion=sum")
    command = compare_names(Comparison(attention=names, out=tmp_path, **options))
    folder = tmp_path / "digits-resnet20"
    told: list[str] = []
    results = cpsam.compare(
        ["None", "CPSAM:fusion=sum"],
        data="digits",
        model="ResNet20",
        at="Before-Last",
        folder=folder,
        progress=False,
        on_event=lambda event: told.append(event["event"]),
        **options,
    )
    assert folders(results) == {
        arm["name"]: [run["folder"] for run in arm["runs"]] for arm in command["arms"]
    }
    assert "step" not in told


def test_floats_are_taken_as_they_are_and_bytes_are_normalised(
    asked: tuple[Path, cpsam.Results], tmp_path: Path
) -> None:
    configs = {}
    for kind in ("array", "bytes", "floats"):
        results = ask(tmp_path / kind, blocks={"none": None}, data=data(kind), seeds=1)
        run = results.arms[0].runs[0].folder
        configs[kind] = json.loads((tmp_path / kind / run / "config.json").read_text())
        if kind != "floats":
            assert run == folders(asked[1])["none"][0], "the pixels are the same"
    assert configs["floats"]["data"]["std"] == [1 / 255] * 3
    dataset = cpsam.api.compare.own_dataset(data("floats"))
    (x, y), *_ = cpsam.data.train_batches(dataset, batch_size=24, seed=0, epoch=0)
    wanted = torch.stack([image for image, _ in (data("floats")[0][index] for index in range(24))])
    order = [int((wanted == image).flatten(1).all(1).nonzero()) for image in x]
    assert sorted(order) == list(range(24)) and y.tolist() == [index % 3 for index in order]


def test_a_run_of_objects_is_loaded_and_measured_with_the_same_objects(
    asked: tuple[Path, cpsam.Results],
) -> None:
    folder, results = asked
    run = results.arms[3].runs[1]
    model = cpsam.load_run(str(folder / run.folder), model=lambda: MyNet(), block=MyBlock)
    assert not model.training
    assert cpsam.evaluate(model, data(), progress=False)["n"] == 9
    measured = cpsam.evaluate(
        folder / run.folder, data(), network=lambda: MyNet(), block=MyBlock, progress=False
    )
    assert measured["top1"] == run.top1
    with pytest.raises(cpsam.UserError, match=r"give it as model"):
        cpsam.load_run(folder / run.folder, block=MyBlock)
    with pytest.raises(cpsam.UserError, match=r"and block is "):
        cpsam.load_run(folder / run.folder, model=lambda: MyNet(), block=nn.Identity)


def test_training_a_model_of_ones_own_continues_from_the_same_weights(tmp_path: Path) -> None:
    def once(seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        options = {"folder": str(tmp_path / "run"), "progress": False}
        return cpsam.train(MyNet(), data(), epochs=1, batch_size=8, **options)

    assert once(0)["timing"] == once(0)["timing"], "the second call reads the run"
    with pytest.raises(cpsam.UserError, match="initial_weights_sha256"):
        once(1)


NET = MyNet()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": {"mine": lambda c: NET}}, "NET is an object of the class MyNet"),
        ({"blocks": {"mine": NET.stem.forward}}, "a method of an object of the class Conv2d"),
        ({"blocks": {"mine": 3}}, "must be None, a name, or a callable"),
        ({"blocks": {"cpsam": MyBlock}}, "would mislead"),
        ({"model": NET}, "or lambda: "),
        ({"model": lambda: nn.Flatten()}, "the model answers"),
        ({"data": [1, 2, 3]}, r"a pair \(train, test\)"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"weights": "missing.pth"}, r"missing\.pth"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(cpsam.CpsamError, match=message) as error:
        ask(tmp_path, **changes)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*/config.json"))

"""Each preset trains, and each flag changes one field of it."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import save_file
from support.imagenet_tree import write_folder

from cpsam.cli import main
from cpsam.cli.compare import VERB as COMPARE
from cpsam.cli.compare import CompareRequest
from cpsam.cli.flags import build
from cpsam.cli.preset import complete
from cpsam.cli.train import VERB, TrainRequest
from cpsam.config.presets import PRESETS, find_preset
from cpsam.config.recipe import Recipe
from cpsam.config.task import Task
from cpsam.data.sets import cued_digits
from cpsam.errors import StoppedError
from cpsam.models import create_model
from cpsam.run.train_run import train_arm


def small_cifar(root: Path) -> Path:
    """CIFAR-100 of eight images of noise to train on, and two to measure on."""
    (root / "cifar100").mkdir(parents=True)
    for split, count in (("train", 8), ("test", 2)):
        images = []
        for seed in range(count):
            buffer = io.BytesIO()
            Image.fromarray(
                np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
            ).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"img": images, "fine_label": pa.array(range(count), pa.int64())})
        pq.write_table(table, root / f"cifar100/{split}-00000-of-00001.parquet")
    return root


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CPSAM_CACHE", str(tmp_path / "cache"))
    for rounds in ("TRAIN_ROUNDS", "TEST_ROUNDS"):
        monkeypatch.setattr(cued_digits, rounds, 1)
    write_folder(tmp_path / "data/imagenet", classes=4, train=2, validation=1)
    return small_cifar(tmp_path / "data")


def request(*words: str) -> TrainRequest:
    return build(TrainRequest, complete(VERB, list(words)))


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_trains_for_two_steps(name: str, data: Path, tmp_path: Path) -> None:
    words = [
        "--preset",
        name,
        "--data-root",
        str(data),
        "--batch-size",
        "4",
        "--out",
        str(tmp_path / "run"),
        "--threads",
        "1",
    ]
    if name == "cued-digits":
        words += ["--batch-size", "180"]
    if "imagenet" in name:
        words += ["--image-size", "64", "--workers", "0", "--model", "timm/resnet26"]
    if "weights" in find_preset(name).needs:
        save_file(create_model("timm/resnet26", 1000).state_dict(), tmp_path / "w.safetensors")
        words += ["--weights", str(tmp_path / "w.safetensors")]
    asked, events = request(*words), []

    def stop_after_two_steps(event: dict) -> None:
        events.append(event)
        if event["event"] == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(StoppedError, match="the same command continues"):
        train_arm(
            asked.task,
            asked.attention,
            asked.recipe,
            asked.seed,
            asked.threads,
            asked.out,
            stop_after_two_steps,
        )
    (record,) = [event for event in events if event["event"] == "epoch"]
    assert record["step"] == 2 and record["epochs"] == find_preset(name).recipe.epochs
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["data"]["name"] == find_preset(name).task["data"]
    assert ("transform" in config["data"]) == ("imagenet" in name)


@pytest.mark.parametrize("name", PRESETS)
def test_its_docstring_holds_a_command_a_result_and_a_cost(name: str) -> None:
    text = PRESETS[name].__doc__ or ""
    (command,) = re.findall(r"Command:\s+``([^`]*)``", text)
    assert "Expected:" in text and "Cost:" in text and f"--preset {name} " in command
    words = command.partition(" train ")[2].split()
    assert request(*words).recipe == find_preset(name).recipe
    assert ("--weights" in words) == ("weights" in find_preset(name).needs)


def test_a_flag_changes_one_field_of_a_recipe(tmp_path: Path) -> None:
    asked = request(
        "--preset=cifar100-200ep", "--lr", "0.05", "--model", "resnet56", "--out", str(tmp_path)
    )
    recipe = find_preset("cifar100-200ep").recipe
    assert (
        asked.recipe.lr == 0.05
        and asked.recipe.milestones == recipe.milestones
        and asked.recipe.epochs == 200
    )
    assert asked.task.model == "resnet56" and asked.task.data == "cifar100"
    assert request("--out", str(tmp_path)) == TrainRequest(out=tmp_path)


@pytest.mark.parametrize("words", [["--recipe", "cifar100-fast"], ["--recipe=cifar100-fast"]])
def test_the_former_name_of_the_flag_is_understood_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    asked = request(*words, "--out", str(tmp_path))
    assert asked == request("--preset", "cifar100-fast", "--out", str(tmp_path))
    assert capsys.readouterr().err == "cpsam: --recipe is called --preset now\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--preset", "cifar100-200"],
            "unknown preset 'cifar100-200': did you mean 'cifar100-200ep'",
        ),
        (["--preset", "cifar100-200ep", "--lr", "-1"], "lr must be a number above 0"),
        (["--preset", "imagenet-finetune-40ep"], "preset imagenet-finetune-40ep needs --weights"),
        (
            ["--preset", "cifar100-fast", "--skip-bad", "nowhere.json"],
            "nowhere.json: cannot be read",
        ),
        (
            ["--preset", "cifar100-fast", "--random-erasing", "0.1"],
            "transform is for folder and imagenet, cifar100 is held as bytes",
        ),
        (["--workers", "-1"], "workers must be a whole number from 0 to 1,024; got -1"),
    ],
)
def test_what_does_not_fit_is_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "--out", str(tmp_path / "run"), *words])
    assert end.value.code in (2, 3) and message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_the_run_would_be_and_makes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        "--preset",
        "imagenet-120ep",
        "--data-root",
        str(data),
        "--image-size",
        "64",
        "--model",
        "timm/resnet26",
    ]
    words += ["--batch-size", "3", "--workers", "0", "--out", str(tmp_path / "run"), "--dry-run"]
    main([*words, "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert plan["data"] == {
        "train": 8,
        "test": 4,
        "classes": 4,
        "image_shape": [3, 64, 64],
        "note": "",
    }
    assert (plan["steps_per_epoch"], plan["steps"]) == (3, 360)
    assert (
        plan["config"]["recipe"]["lr"] == 0.1
        and plan["config"]["data"]["transform"]["min_crop"] == 0.08
    )
    model = create_model("timm/resnet26", 4, attention="cpsam", at="gc-c3-c5")
    assert plan["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (
        plan["memory_bytes"]["weights"]
        == plan["memory_bytes"]["optimizer"]
        == 4 * plan["parameters"]
    )
    assert plan["training_macs"] == 3 * plan["macs"] * 8 * 120
    main(words)
    out = capsys.readouterr().out
    assert (
        plan["timing"]["run_seconds"] > 0
        and " on this machine, estimated from two timed steps" in out
    )
    assert (
        "recipe.lr" in out
        and "360 steps, 3 per epoch" in out
        and f"{plan['parameters']:,} parameters" in out
    )
    assert not (tmp_path / "run").exists()


def test_without_data_a_dry_run_takes_published_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CPSAM_DATA", raising=False)
    main(
        [
            "train",
            "--preset",
            "cifar100-200ep",
            "--validation",
            "0.1",
            "--out",
            str(tmp_path / "run"),
            "--dry-run",
            "--json",
        ]
    )
    plan = json.loads(capsys.readouterr().out)
    assert plan["data"] == {
        "train": 45_000,
        "test": 5_000,
        "classes": 100,
        "image_shape": [3, 32, 32],
        "note": "no folder of data given: sizes as published",
    }
    assert plan["steps"] == 200 * 352


def test_the_preset_with_the_name_of_the_data_set_gives_what_is_left_open() -> None:
    compare = build(CompareRequest, complete(COMPARE, [])).comparison
    assert (compare.task.data, compare.task.model) == ("cued-digits", "resnet8")
    assert compare.recipe == find_preset("cued-digits").recipe
    named = build(CompareRequest, complete(COMPARE, ["--data", "cued-digits", "--lr", "0.2"]))
    assert named.comparison.task == compare.task
    assert named.comparison.recipe == replace(compare.recipe, lr=0.2)
    other = build(CompareRequest, complete(COMPARE, ["--data", "digits"])).comparison
    assert other.task == Task(data="digits") and other.recipe == Recipe()
    paper = build(CompareRequest, complete(COMPARE, ["--preset", "cifar100-200ep"])).comparison
    assert paper.task.data == "cifar100" and paper.recipe == find_preset("cifar100-200ep").recipe
    assert paper.attention == compare.attention

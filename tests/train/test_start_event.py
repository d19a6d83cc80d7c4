"""A run reports at once what it does, and refuses a folder or weights that it cannot trust."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import RECIPE, TinyNet, tiny_model
from support.tiny_runs import interrupt, run

from cpsam.checkpoint import seal
from cpsam.cli import main
from cpsam.errors import DataError, DivergedError, StoppedError, UserError
from cpsam.train import Recipe
from cpsam.train.launcher import read_launcher
from cpsam.train.rendezvous import rendezvous


def test_a_run_says_what_it_does_before_its_first_step_and_again_when_it_continues(
    tmp_path: Path,
) -> None:
    events: list[dict[str, Any]] = []
    with pytest.raises(StoppedError):
        run(tmp_path, on_event=lambda event: (events.append(event), interrupt("epoch", 1)(event)))
    assert events[0] == {
        "event": "start",
        "data": "tiny",
        "train_images": 29,
        "test_images": 13,
        "measured_on": "test split",
        "classes": 7,
        "parameters": sum(parameter.numel() for parameter in tiny_model().parameters()),
        "places": [],
        "device": "cpu",
        "precision": "float32",
        "channels_last": True,
        "threads": torch.get_num_threads(),
        "processes": 1,
        "epochs": 3,
        "steps": 12,
    }
    events.clear()
    run(tmp_path, on_event=events.append)
    assert [event["event"] for event in events[:2]] == ["resumed", "start"]
    events.clear()
    run(tmp_path, on_event=events.append)
    assert not events, "a finished run does nothing"


def test_the_command_says_it_on_standard_error_in_two_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [
        "--epochs",
        "1",
        "--threads",
        "1",
        "--validation",
        "0.9",
        "--batch-size",
        "200",
        "--precision",
        "float32",
    ]
    main(["train", "--out", str(tmp_path / "run"), "--attention", "norm_only", *short, "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out)["epochs"] == 1
    network, computes = err.splitlines()[:2]
    images = (
        "digits: 144 images to train on, 1,294 of the validation split to measure on, 10 classes"
    )
    assert network.startswith("resnet20 with norm_only at layer2.1, layer3.1, ")
    assert network.endswith(f" parameters, starts from random weights; {images}")
    assert computes == "on cpu, in float32, channels last, 1 thread; 1 step in 1 epoch"

    weights = ["--weights", str(tmp_path / "run"), "--attention", "norm_only"]
    main(["train", "--out", str(tmp_path / "next"), *weights, *short])
    assert (
        f"starts from {tmp_path / 'run'} with their classifier; digits" in capsys.readouterr().err
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after one of three epochs."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(StoppedError):
        run(folder, on_event=interrupt("epoch", 1))
    return folder


@pytest.mark.parametrize("name", [".lock", "checkpoints", "tensorboard"])
def test_a_link_in_a_run_folder_is_refused_before_the_first_step(
    stopped: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / "tensorboard").mkdir()
    (tmp_path / "run" / name).rename(tmp_path / "else")
    (tmp_path / "run" / name).symlink_to(tmp_path / "else")
    events: list[dict[str, Any]] = []
    with pytest.raises(UserError, match=f"{name} is a link, and must be a f"):
        run(tmp_path / "run", on_event=events.append)
    assert not events


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 1.0),
        ("epochs", True),
        ("loss_sum", "x"),
        ("loss_sum", None),
        ("seconds", []),
        ("seconds", -1),
        ("step", 4.0),
    ],
)
def test_a_position_that_is_no_position_is_one_line(
    stopped: Path, tmp_path: Path, field: str, value: object
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    for manifest in (tmp_path / "checkpoints").glob("step-*/manifest.json"):
        content = json.loads(manifest.read_bytes().splitlines()[0])
        content["meta"]["position"][field] = value
        manifest.write_bytes(seal(content))
    with pytest.raises(DataError, match="the checkpoint of step 4 does not fit this run"):
        run(tmp_path)


class Overflown(TinyNet):
    """A network whose statistics leave the finite numbers while its logits stay: a division by
    infinity is zero.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.norm.running_var.fill_(float("inf"))
        return super().forward(x)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_statistics_of_a_norm_that_are_not_finite_at_the_end_are_no_result(
    tmp_path: Path, average: float
) -> None:
    recipe = Recipe(**{**RECIPE.to_dict(), "epochs": 1, "ema_decay": average})
    with pytest.raises(DivergedError, match=r"the weights are not finite: norm\.running_var"):
        run(tmp_path, Overflown(), recipe)
    assert not (tmp_path / "summary.json").exists()


def test_a_step_that_overflows_is_not_blamed_on_statistics_that_it_does_not_read(
    tmp_path: Path,
) -> None:
    recipe = Recipe(**{**RECIPE.to_dict(), "lr": 1e30})
    with pytest.raises(DivergedError) as caught:
        run(tmp_path, recipe=recipe)
    assert "running_" not in str(caught.value)


def test_statistics_that_are_not_finite_at_the_start_are_named(tmp_path: Path) -> None:
    model = tiny_model()
    model.norm.running_mean[2] = float("nan")
    with pytest.raises(DataError, match=r"before the first step: norm\.running_mean"):
        run(tmp_path, model)


@pytest.mark.parametrize("size", ["4", "0", "-1", "two"])
def test_a_number_of_processes_without_a_rank_is_refused(size: str) -> None:
    with pytest.raises(UserError, match=f"WORLD_SIZE is '{size}' and RANK is not set"):
        read_launcher({"WORLD_SIZE": size})


@pytest.mark.parametrize(
    "environment", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"LOCAL_RANK": "0"}]
)
def test_one_process_needs_no_rank(environment: dict[str, str]) -> None:
    assert read_launcher(environment)[0].world_size == 1


@pytest.mark.parametrize(
    "address", ["a..b", "..", "x" * 70, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 80]
)
def test_an_address_that_no_machine_can_have_is_one_line(address: str) -> None:
    with pytest.raises(UserError, match=r"MASTER_ADDR: the address '.*' is not known \("):
        rendezvous(1, 2, address, 29_500, lambda words: None)

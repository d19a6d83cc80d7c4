"""A run that was stopped or killed and is continued ends with the bits of one that was not."""

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support import killed_runs, processes
from support.tiny import FULL, RECIPE, tiny_dataset, tiny_model, tiny_residual
from support.tiny_runs import assert_same_run, interrupt, run
from torch import nn

from cpsam.checkpoint import load_checkpoint
from cpsam.config.run_options import RunOptions
from cpsam.errors import DataError, StoppedError, UserError
from cpsam.insert import insert_attention, insert_from_config
from cpsam.train import Recipe
from cpsam.train.train import train
from cpsam.weights_file import load_weights

Event = dict[str, Any]


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        Recipe(
            epochs=3,
            batch_size=8,
            optimizer="adamw",
            lr=0.01,
            schedule="cosine",
            warmup_epochs=1,
            precision="bfloat16",
        ),
        Recipe(
            epochs=3,
            batch_size=8,
            optimizer="momentum",
            momentum=0.0,
            lr=0.01,
            schedule="step",
            precision="float32",
            channels_last="off",
        ),
    ],
    ids=["sgd", "adamw-bfloat16", "plain-sgd"],
)
@pytest.mark.parametrize("kind", ["epoch", "evaluation"])
def test_stopped_and_continued_equals_uninterrupted(
    tmp_path: Path, recipe: Recipe, kind: str
) -> None:
    reference = tiny_model()
    run(tmp_path / "whole", reference, recipe)
    for epoch in (1, 2):
        with pytest.raises(
            StoppedError,
            match=(
                f"stopped after step {4 * epoch} of 12; the last checkpoint is of step {4 * epoch} "
            ),
        ) as caught:
            run(tmp_path / "parts", tiny_model(), recipe, on_event=interrupt(kind, epoch))
        assert caught.value.exit_code == 75
    events: list[Event] = []
    model = tiny_model()
    run(tmp_path / "parts", model, recipe, on_event=events.append)
    assert events[0] == {
        "event": "resumed",
        "epoch": 2 if kind == "epoch" else 1,
        "step": 8,
        "steps": 12,
        "warnings": [],
    }
    assert_same_run(tmp_path / "parts", model, tmp_path / "whole", reference)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_stopped_at_every_step_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, precision: str
) -> None:  # fmt: skip
    monkeypatch.setattr("cpsam.train.throughput.REPORT_SECONDS", 0.0)
    recipe = Recipe(**{**FULL, "optimizer": optimizer, "precision": precision})  # pyrefly: ignore
    reference, model = tiny_residual(), tiny_residual()
    run(tmp_path / "whole", reference, recipe)
    calls = []
    while not (tmp_path / "parts" / "summary.json").exists():
        started: list[int] = []

        def on_event(event: Event, started: list[int] = started) -> None:
            if event["event"] == "step":
                started.append(event["step"])
                raise KeyboardInterrupt

        model = tiny_residual()
        with contextlib.suppress(StoppedError):
            run(tmp_path / "parts", model, recipe, on_event=on_event)
        calls.append(started)
    assert len(calls) >= 6, "each call made two steps at most"
    assert_same_run(tmp_path / "parts", model, tmp_path / "whole", reference)
    for name in ("weights", "best"):
        ours, theirs = (
            load_weights(tmp_path / folder / f"{name}.safetensors") for folder in ("parts", "whole")
        )
        assert ours[1] == theirs[1]
        assert all(torch.equal(ours[0][key], tensor) for key, tensor in theirs[0].items())


def test_a_run_saves_as_often_as_asked(tmp_path: Path) -> None:
    run(tmp_path, options=RunOptions(checkpoint_steps=3, keep=9, checkpoint_minutes=0))
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == [
        f"step-{step:08d}" for step in (3, 4, 6, 8, 9, 12)
    ]  # fmt: skip


def test_time_saves_and_ends_a_run(tmp_path: Path) -> None:
    run(
        tmp_path / "saves",
        recipe=Recipe(epochs=1, batch_size=8, lr=0.05),
        options=RunOptions(checkpoint_minutes=1e-9, keep=9),
    )
    assert len(list((tmp_path / "saves" / "checkpoints").glob("step-*"))) == 4
    model, reference = tiny_model(), tiny_model()
    run(tmp_path / "whole", reference)
    with pytest.raises(
        StoppedError, match="stopped after step 0 of 12; the last checkpoint is of step 0 "
    ):
        run(tmp_path / "parts", options=RunOptions(max_minutes=1e-9))
    run(tmp_path / "parts", model, options=RunOptions(max_minutes=60))
    assert_same_run(tmp_path / "parts", model, tmp_path / "whole", reference)


def test_the_error_says_what_is_kept(tmp_path: Path) -> None:
    with pytest.raises(
        StoppedError, match="stopped after step 2 of 12; the last checkpoint is of step 2 "
    ):
        run(tmp_path, on_event=interrupt("step", 1))
    with pytest.raises(
        StoppedError,
        match=f"after step 8 .* is of step 8 \\({tmp_path}\\), and the same command continues",
    ):
        run(tmp_path, on_event=interrupt("epoch", 2))


def exit_code(folder: Path, out: Path, kind: str, epoch: int, signal_number: int) -> int:
    """Runs in a process that sends itself a signal at an event, and returns its exit code."""
    return processes.end(
        processes.start(killed_runs.run_signalled, folder, out, kind, epoch, signal_number)
    )


# the last may not be written yet
@pytest.mark.parametrize(("kind", "kept"), [("evaluation", {1, 2}), ("epoch", {2, 3})])
def test_killed_and_continued_equals_uninterrupted(
    tmp_path: Path, kind: str, kept: set[int]
) -> None:
    reference, model = tiny_model(), tiny_model()
    run(tmp_path / "whole", reference)
    assert exit_code(tmp_path / "parts", tmp_path, kind, 3, signal.SIGKILL) == -signal.SIGKILL
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')  # The process died while it wrote the next line.
    events: list[Event] = []
    run(tmp_path / "parts", model, on_event=events.append)
    assert (events[0]["event"], events[0]["warnings"]) == ("resumed", [])
    assert events[0]["epoch"] in kept
    assert_same_run(tmp_path / "parts", model, tmp_path / "whole", reference)


@pytest.mark.parametrize("kind", ["step", "evaluation"])
def test_sigterm_ends_the_run_before_the_epoch_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("cpsam.train.throughput.REPORT_SECONDS", 0.0)
    seen: list[str] = []

    def on_event(event: Event) -> None:
        if event.get("epoch") == 2:
            seen.append(event["event"])
            if seen == [kind] or (kind == "evaluation" and seen[-1] == kind):
                os.kill(os.getpid(), signal.SIGTERM)

    reached = 6 if kind == "step" else 8  # The step in which the signal came is finished.
    with pytest.raises(
        StoppedError,
        match=f"stopped after step {reached} of 12; the last checkpoint is of step {reached} ",
    ):
        run(tmp_path, on_event=on_event)
    assert seen == (["step"] * 2 if kind == "step" else ["step"] * 4 + ["evaluation"])


def test_sigterm_from_outside_ends_the_run_as_ctrl_c_does(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    assert exit_code(run_folder, tmp_path, "evaluation", 2, signal.SIGTERM) == 75
    kept = f"the last checkpoint is of step 8 ({run_folder})"
    assert (
        json.loads((tmp_path / "error.json").read_text())
        == f"stopped after step 8 of 12; {kept}, and the same command continues"
    )


def test_a_signal_that_comes_last_is_not_swallowed(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def on_event(event: Event) -> None:
        if event["event"] == "epoch" and event["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)  # Background jobs ignore SIGINT.

    with pytest.raises(StoppedError, match="stopped after step 12 of 12"):
        run(tmp_path, on_event=on_event)
    assert run(tmp_path)["epochs"] == 3
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_run_works_in_a_thread_where_signals_cannot_be_caught(tmp_path: Path) -> None:
    thread = threading.Thread(target=run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert (tmp_path / "summary.json").exists()


def test_a_damaged_checkpoint_is_told_and_the_one_before_used(tmp_path: Path) -> None:
    reference, model = tiny_model(), tiny_model()
    run(tmp_path / "whole", reference)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", on_event=interrupt("epoch", 2))
    newest = max((tmp_path / "parts" / "checkpoints").glob("step-*")) / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-5])
    events: list[Event] = []
    run(tmp_path / "parts", model, on_event=events.append)
    assert events[0]["epoch"] == 1
    assert "tensors.safetensors has" in events[0]["warnings"][0]
    assert_same_run(tmp_path / "parts", model, tmp_path / "whole", reference)


def test_metrics_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, on_event=interrupt("epoch", 2))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text(lines[1])
    with pytest.raises(
        DataError, match=r"metrics\.jsonl: the lines of epochs 1 to 2.* are not all there"
    ):
        run(tmp_path)


def test_the_compute_stays_as_it_was_begun(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    recipe = Recipe(epochs=2, batch_size=8, lr=0.05)  # precision is "auto"
    with pytest.raises(StoppedError):
        run(tmp_path, recipe=recipe, on_event=interrupt("epoch", 1))
    config = json.loads((tmp_path / "config.json").read_text())
    # The run looks as if another machine began it.
    config["settled"] |= {"precision": "bfloat16", "threads": threads + 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, seen = tiny_model(), []
    model.fc.register_forward_hook(
        lambda module, inputs, output: seen.append((output.dtype, torch.get_num_threads()))
    )
    run(tmp_path, model, recipe)
    assert set(seen) == {(torch.bfloat16, threads + 1)}
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert [environment["threads"], environment["resumed"][0]["threads"]] == [threads, threads + 1]


def test_a_run_on_another_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, on_event=interrupt("epoch", 1))
    config = json.loads((tmp_path / "config.json").read_text())
    config["settled"]["device"] = "cuda"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="holds a run on cuda, and this is cpu"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("inserted", "says"), [(None, "the model lacks '0.attention.*"), ("cpsam", "has shape")]
)
def test_a_checkpoint_of_another_model_is_refused(
    tmp_path: Path, inserted: str | None, says: str
) -> None:
    def model(classes: int, attention: str | None) -> nn.Module:
        host = nn.Sequential(
            nn.Conv2d(2, 8, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, classes),
        )
        if attention:
            insert_attention(host, attention, at="0")
        return host

    data, options = tiny_dataset(), {"seed": 0, "folder": tmp_path, "config": {}, "device": "cpu"}
    with pytest.raises(StoppedError):
        train(model(7, "cpsam"), data, RECIPE, on_event=interrupt("epoch", 1), **options)
    with pytest.raises(UserError, match=f"the checkpoint is of another model: .*{says}"):
        train(model(7 if inserted is None else 9, inserted), data, RECIPE, **options)


def test_what_is_inserted_is_stored_beside_the_weights(tmp_path: Path) -> None:
    def host() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7)
        )

    model, rebuilt = host(), host()
    insert_attention(model, "global_context", at="0")
    run(tmp_path, model)
    weights, meta = load_weights(tmp_path / "weights.safetensors")
    insert_from_config(rebuilt, meta["attention"])
    rebuilt.load_state_dict(weights)
    x = torch.randn(3, 2, 5, 9)
    # Only one is channels_last, so rounding may differ.
    torch.testing.assert_close(rebuilt.eval()(x), model.eval()(x))
    checkpoint = load_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.meta["attention"] == meta["attention"] != []


def test_two_processes_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = processes.start(killed_runs.hold_folder, folder, tmp_path)
    while not (tmp_path / "held.json").exists():
        assert holder.is_alive()
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"run folder .* is in use by process {holder.pid} on "):
        run(folder)
    holder.kill()
    holder.join()
    assert run(folder)["epochs"] == 3  # The system released the lock.

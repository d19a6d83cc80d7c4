"""What one run computes and writes, and how it ends."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.tiny import RECIPE, TinyNet, tiny_dataset, tiny_model
from support.tiny_runs import records, run
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from cpsam.data.batches import train_batches
from cpsam.errors import DivergedError, UserError
from cpsam.evaluate import evaluate
from cpsam.identity import run_identity
from cpsam.seeds import derive_seed
from cpsam.train import Recipe
from cpsam.train.schedule import learning_rate
from cpsam.train.step import make_optimizer
from cpsam.train.train import train
from cpsam.weights_file import load_weights


def test_a_run_is_the_plain_loop_written_out(tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=2,
        batch_size=8,
        lr=0.05,
        momentum=0.8,
        weight_decay=0.01,
        label_smoothing=0.1,
        precision="float32",
    )
    data, model, trained = tiny_dataset(), tiny_model(), tiny_model()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": rest, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.01}]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.8, nesterov=True)
    model.train()
    losses, step = [], 0
    for epoch in range(2):
        for x, y in train_batches(data, batch_size=8, seed=5, epoch=epoch):
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = learning_rate(
                recipe, step, 4
            )
            torch.manual_seed(derive_seed(5, "step", step, 0, 0))
            loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append((loss.item(), len(y)))
            step += 1
    summary = run(tmp_path, trained, recipe)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(
            trained.state_dict()[name], tensor, rtol=1e-4, atol=1e-6, msg=name
        )
    assert summary["train_loss"] == pytest.approx(
        sum(loss * n for loss, n in losses[4:]) / 29, rel=1e-5
    )
    assert {name: summary[name] for name in ("top1", "top5", "loss", "n")} == evaluate(
        trained, data, batch_size=8
    )
    assert (summary["epochs"], summary["steps"]) == (2, 8)


def test_the_folder_holds_plain_files_that_say_what_was_run(tmp_path: Path) -> None:
    model = tiny_model()
    summary = run(tmp_path, model)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["what"] == "tiny"
    assert config["seed"] == 5
    assert Recipe(**config["recipe"]) == RECIPE
    assert config["dataset"] == {"name": "tiny", "fingerprint": "0123", "train": 29, "test": 13}
    assert config["settled"] == {
        "device": "cpu",
        "precision": "float32",
        "channels_last": True,
        "threads": torch.get_num_threads(),
    }
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0]
    assert environment["threads"] == torch.get_num_threads()
    assert [(line["epoch"], line["step"]) for line in records(tmp_path)] == [
        (1, 4),
        (2, 8),
        (3, 12),
    ]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert set(summary["timing"]) == {
        "train_seconds",
        "evaluation_seconds",
        "images_per_s",
        "sha256",
    }
    weights, meta = load_weights(tmp_path / "weights.safetensors")
    assert meta == {"attention": [], "identity": run_identity(config)} and summary[
        "identity"
    ] == run_identity(config)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_a_finished_run_is_read_and_not_repeated(tmp_path: Path) -> None:
    first, untouched = run(tmp_path), tiny_model()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    events: list[dict[str, Any]] = []
    assert run(tmp_path, untouched, on_event=events.append) == first
    assert events == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            untouched.state_dict().values(), tiny_model().state_dict().values(), strict=True
        )
    )


def test_the_same_call_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    models = [tiny_model() for _ in range(3)]
    for index, (model, seed) in enumerate(zip(models, (5, 5, 6), strict=True)):
        torch.manual_seed(index)  # The global generator has no influence.
        run(tmp_path / str(index), model, seed=seed)
    same, again, other = (model.state_dict() for model in models)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert records(tmp_path / "0") == records(tmp_path / "1") != records(tmp_path / "2")
    assert not torch.equal(same["fc.weight"], other["fc.weight"])


def test_global_state_is_put_back(tmp_path: Path) -> None:
    torch.manual_seed(11)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_without_augmentation_the_pixels_are_those_of_the_data(tmp_path: Path) -> None:
    seen: list[Tensor] = []
    model = tiny_model()
    model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].clone()) if module.training else None
    )
    run(
        tmp_path, model, Recipe(epochs=1, batch_size=8, lr=0.05, augment=False, precision="float32")
    )
    data = tiny_dataset()
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    plain = (data.train.images / 255 - mean) / std
    shown = torch.cat(seen)
    assert len(shown) == 29
    assert all((plain - image).abs().amax((1, 2, 3)).min() < 1e-5 for image in shown)


def test_events_tell_the_steps_the_evaluation_and_the_epochs(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    run(tmp_path, on_event=events.append)
    steps = [event for event in events if event["event"] == "step"]
    assert steps[0].keys() == {
        "event",
        "epoch",
        "epochs",
        "step",
        "steps",
        "lr",
        "loss",
        "images_per_s",
        "seconds_left",
    }
    assert (steps[0]["step"], steps[0]["steps"], steps[0]["epoch"], steps[0]["epochs"]) == (
        1,
        12,
        1,
        3,
    )
    assert [event["images"] for event in events if event["event"] == "evaluation"] == [0, 8] * 3
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [{name: event[name] for name in records(tmp_path)[0]} for event in epochs] == records(
        tmp_path
    )


def test_a_model_that_comes_in_eval_mode_is_trained_all_the_same(tmp_path: Path) -> None:
    models = [tiny_model().train(), tiny_model().eval()]
    for index, model in enumerate(models):
        run(tmp_path / str(index), model)
    assert records(tmp_path / "0") == records(tmp_path / "1")


def test_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path: Path) -> None:
    model, seen = tiny_model(), []
    model.fc.register_forward_hook(
        lambda module, inputs, output: seen.append((module.training, output.dtype))
    )
    run(tmp_path, model, Recipe(epochs=1, batch_size=8, lr=0.05, precision="bfloat16"))
    assert set(seen) == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert json.loads((tmp_path / "config.json").read_text())["settled"]["precision"] == "bfloat16"


@pytest.mark.parametrize(
    ("switch", "expected"), [("on", torch.channels_last), ("off", torch.contiguous_format)]
)
def test_the_memory_format_is_that_of_the_recipe(
    tmp_path: Path, switch: str, expected: torch.memory_format
) -> None:
    model, seen = tiny_model(), []
    model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].is_contiguous(memory_format=expected))
    )
    run(tmp_path, model, Recipe(epochs=1, batch_size=8, lr=0.05, channels_last=switch))  # pyrefly: ignore
    assert all(seen)
    assert model.conv.weight.is_contiguous(memory_format=expected)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_parameters_with_one_axis_have_no_weight_decay(name: str) -> None:
    model = tiny_model()
    optimizer = make_optimizer(model, Recipe(optimizer=name, lr=1e-3, weight_decay=0.3))  # pyrefly: ignore
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        name: 0.3 if p.ndim > 1 else 0.0 for name, p in model.named_parameters()
    }
    assert [group.get("nesterov") for group in optimizer.param_groups] == [
        {"sgd": True, "momentum": False, "adamw": None}[name]
    ] * 2


def test_a_diverging_run_stops_before_the_optimizer_moves(tmp_path: Path) -> None:
    moved = []
    handle = register_optimizer_step_post_hook(lambda optimizer, args, kwargs: moved.append(1))
    try:
        with pytest.raises(
            DivergedError,
            match=(
                r"the (loss|gradient norm) is (nan|inf) at step (\d+) of 12.*lr 1e\+10.*checkpoint"
            ),
        ) as caught:
            run(
                tmp_path,
                recipe=Recipe(
                    epochs=3,
                    batch_size=8,
                    lr=1e10,
                    schedule="step",
                    milestones=(),
                    precision="float32",
                ),
            )
    finally:
        handle.remove()
    assert f"at step {len(moved) + 1} of 12" in str(caught.value)  # the step it names was not made
    assert caught.value.exit_code == 4
    assert not (tmp_path / "summary.json").exists()


class Spoiled(TinyNet):
    """Answers NaN from one training step on."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.load_state_dict(tiny_model().state_dict())
        self.good = good

    def forward(self, x: Tensor) -> Tensor:
        self.good -= self.training
        return super().forward(x) * (1.0 if self.good >= 0 else float("nan"))


def test_the_weights_are_those_of_the_last_good_step(tmp_path: Path) -> None:
    spoiled, stopped = Spoiled(good=6), tiny_model()
    with pytest.raises(
        DivergedError,
        match=(
            r"nan at step 7 of 12, in epoch 2 of 3, with lr .*; the last checkpoint is of step 4 "
        ),
    ):
        run(tmp_path / "spoiled", spoiled)
    made = []

    def stop(module: nn.Module, inputs: object) -> None:
        made.append(module.training)
        if sum(made) == 7:
            raise RuntimeError("enough")

    stopped.register_forward_pre_hook(stop)
    with pytest.raises(RuntimeError, match="enough"):
        run(tmp_path / "stopped", stopped)
    assert all(
        torch.equal(a, b) for a, b in zip(spoiled.parameters(), stopped.parameters(), strict=True)
    )


def test_keys_that_the_run_writes_itself_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not have the key 'recipe'"):
        train(tiny_model(), tiny_dataset(), RECIPE, seed=0, folder=tmp_path, config={"recipe": {}})


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("cuda:77", "device 'cuda:77' is not there"),
        ("gpu", "must be 'cpu' or 'cuda'"),
        ("meta", "got 'meta'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        train(
            tiny_model(), tiny_dataset(), RECIPE, seed=0, folder=tmp_path, config={}, device=device
        )

"""The gradients of a step, in micro-batches or whole, and the errors of a step."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.tiny import FULL, TinyNet, tiny_dataset, tiny_model, tiny_residual
from support.tiny_runs import run
from torch import Tensor, nn

from cpsam.errors import DivergedError
from cpsam.train import Recipe
from cpsam.train.compute import Compute
from cpsam.train.distributed import Distributed
from cpsam.train.divergence import SpikeDetector, first_few
from cpsam.train.step import TrainStep

COMPUTE = Compute("cpu", "float32", False, 1)


def linear() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(60, 9), nn.Tanh(), nn.Linear(9, 7)).double()


def make_step(model: nn.Module, compute: Compute = COMPUTE, **fields: Any) -> TrainStep:
    return TrainStep(
        model,
        Recipe(**fields),
        seed=2,
        num_classes=7,
        compute=compute,
        device=torch.device("cpu"),
        distributed=Distributed(),
    )


def batch(count: int = 11) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, 2, 5, 6, generator=draw, dtype=torch.float64), torch.randint(
        0, 7, (count,), generator=draw
    )


@pytest.mark.parametrize("accumulate", [1, 2, 3, 4, 50])
@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.4}, {"cutmix": 1.0}])
def test_parts_add_up_to_the_gradient_of_the_whole(
    accumulate: int, mixed: dict[str, float]
) -> None:
    x, y = batch()
    model, whole = linear(), linear()
    gradients = make_step(
        model, accumulate=accumulate, label_smoothing=0.1, **mixed
    ).compute_gradients(x, y, 5, 11)
    expected = make_step(whole, label_smoothing=0.1, **mixed).compute_gradients(x, y, 5, 11)
    assert gradients.loss == pytest.approx(expected.loss, rel=1e-12)
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-13)
    if not mixed:
        loss = F.cross_entropy(whole(x), y, label_smoothing=0.1)
        assert expected.loss == pytest.approx(11 * loss.item(), rel=1e-12)
        torch.testing.assert_close(
            torch.autograd.grad(loss, whole[1].weight)[0], whole[1].weight.grad
        )


def test_each_part_draws_dropout_of_its_own() -> None:
    x, y = batch(8)
    x[4:], y[4:] = x[:4], y[:4]
    seen: list[Tensor] = []
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(60, 7)).double()
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    make_step(model, accumulate=2).compute_gradients(x, y, 5, 8)
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("clip_norm", [0.001, 1000.0])
def test_the_gradient_is_clipped_to_its_norm(clip_norm: float) -> None:
    x, y = batch()
    model, free = linear(), linear()
    clipped, plain = (
        make_step(net, clip_norm=clip).compute_gradients(x, y, 0, 11)
        for net, clip in ((model, clip_norm), (free, 0.0))
    )
    norms = [
        torch.cat([p.grad.flatten() for p in net.parameters()]).norm().item()
        for net in (model, free)
    ]
    assert clipped.norm == plain.norm == pytest.approx(norms[1], rel=1e-12)
    assert norms[0] == pytest.approx(min(clip_norm, norms[1]), rel=1e-2)


class Spoiling(nn.Module):
    """Spoils the loss of bright images, or the gradient alone."""

    def __init__(self, inner: nn.Module, bright: float = 9.0, gradient: bool = False) -> None:
        super().__init__()
        self.inner, self.bright = inner, bright
        if gradient:
            self.inner.fc.weight.register_hook(lambda grad: grad * float("nan"))

    def forward(self, x: Tensor) -> Tensor:
        spoiled = x.amax((1, 2, 3), keepdim=False) > self.bright
        return torch.where(spoiled[:, None] & self.training, torch.nan, self.inner(x))


def test_the_images_whose_loss_is_not_finite_are_named(tmp_path: Path) -> None:
    data = tiny_dataset()
    data.train.images.clamp_(max=200)
    data.train.images[11] = 255  # Every crop shows it.
    with pytest.raises(
        DivergedError,
        match=r"the loss is nan at step \d of 12.* on train images 11; there is no checkpoint yet",
    ):
        from cpsam.train.train import train

        recipe = Recipe(epochs=3, batch_size=8, lr=0.05, precision="float32")
        train(
            Spoiling(tiny_model(), bright=2.5),
            data,
            recipe,
            seed=5,
            folder=tmp_path,
            config={},
            device="cpu",
        )


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = Spoiling(tiny_model(), gradient=True)
    with pytest.raises(
        DivergedError,
        match=r"the gradient norm is nan at step 1 of 12, .* on train images (\d+, ){7}\d+; ",
    ):
        run(tmp_path, model)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.inner.parameters(), tiny_model().parameters(), strict=True)
    )


class Overflowing(TinyNet):
    """Its gradients are too large for some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.fc.weight.register_hook(self.spoil)

    def spoil(self, gradient: Tensor) -> Tensor:
        self.steps -= 1
        return gradient * (torch.inf if self.steps >= 0 else 1)


def test_overflows_under_a_scaler_are_routine_until_its_scale_is_below_one(tmp_path: Path) -> None:
    recipe = Recipe(epochs=6, batch_size=8, lr=0.05, precision="float16")
    assert run(tmp_path / "routine", Overflowing(5), recipe)["steps"] == 24
    with pytest.raises(
        DivergedError,
        match=r"the gradients overflow at every scale, with a loss of .* at step 17 of 24",
    ):
        run(tmp_path / "diverged", Overflowing(99), recipe)  # 2**16 is halved 17 times
    with pytest.raises(DivergedError, match=r"the loss is nan at step 1 of 24"):
        run(tmp_path / "nan", Spoiling(tiny_model(), bright=-9.0), recipe)


def test_the_average_is_what_is_measured_and_kept(tmp_path: Path) -> None:
    from cpsam.evaluate import evaluate
    from cpsam.weights_file import load_weights

    model = tiny_residual()
    recipe = Recipe(**{**FULL, "channels_last": "off"})  # pyrefly: ignore
    summary = run(tmp_path, model, recipe)
    weights, _ = load_weights(tmp_path / "weights.safetensors")
    assert not torch.equal(weights["0.weight"], model[0].weight)
    average = tiny_residual()
    average.load_state_dict(weights)
    measured = evaluate(average, tiny_dataset(), batch_size=8, channels_last=False)
    assert {name: summary[name] for name in measured} == measured


def test_a_spike_is_a_loss_far_above_the_median() -> None:
    spikes = SpikeDetector()
    assert [spikes.update(1.0 + 0.01 * index) for index in range(20)] == [None] * 20
    assert spikes.update(2.1) is None
    assert spikes.update(9.0) == pytest.approx(1.1, abs=0.02)
    low = SpikeDetector()
    # Near zero a factor means nothing.
    assert [low.update(loss) for loss in [0.01] * 20 + [0.4]] == [None] * 21


def test_spikes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpsam.train.throughput.REPORT_SECONDS", 0.0)
    events: list[dict[str, Any]] = []
    model = tiny_model()
    model.fc.register_forward_hook(
        lambda module, inputs, output: output * (99.0 if len(events) == 21 + 8 else 1.0)
    )
    run(
        tmp_path,
        model,
        Recipe(epochs=8, batch_size=8, lr=1e-4, precision="float32"),
        on_event=events.append,
    )
    spikes = [event for event in events if event["event"] == "spike"]
    assert len(spikes) == 1
    assert spikes[0].keys() == {"event", "step", "loss", "median"}
    assert spikes[0]["loss"] > 2 * spikes[0]["median"]


def test_long_lists_are_cut() -> None:
    assert first_few([1, 2]) == "1, 2"
    assert first_few(list(range(11))) == "0, 1, 2, 3, 4, 5, 6, 7 and 3 more"

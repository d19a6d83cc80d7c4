"""The estimated time of a run comes from real steps, and the model stays as it was."""

import copy

import pytest
import torch
from support.tiny import RECIPE, tiny_dataset, tiny_model
from support.tiny_runs import run

from cpsam.train.compute import choose_compute
from cpsam.train.step_time import run_seconds, seconds_per_image


def test_the_estimate_is_of_the_order_of_the_run_and_the_model_stays_as_it_is(tmp_path) -> None:
    model, data = tiny_model(), tiny_dataset()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    seconds = seconds_per_image(model, RECIPE, (2, 5, 6), 7, choose_compute(RECIPE, "cpu"), "cpu")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and all(
        p.grad is None for p in model.parameters()
    )
    spent = sum(run(tmp_path)["timing"][name] for name in ("train_seconds", "evaluation_seconds"))
    assert (
        spent / 50
        < run_seconds(seconds, RECIPE, len(data.train), len(data.evaluation))
        < 50 * spent
    )


@pytest.mark.parametrize("slow", [True, False])
def test_a_slow_step_is_timed_with_few_images(monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    monkeypatch.setattr("cpsam.train.step_time.STEP_SECONDS", 0.0 if slow else 1e9)
    model, seen = tiny_model(), []
    monkeypatch.setattr("copy.deepcopy", lambda module: module)
    model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    seconds_per_image(model, RECIPE, (2, 5, 6), 7, choose_compute(RECIPE, "cpu"), "cpu")
    assert max(seen) == (2 if slow else 8)

"""A run is done only if its results are finite, and no clock and no option can break it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import RECIPE, TinyNet, tiny_model
from support.tiny_runs import assert_same_run, run
from torch.nn import functional as F

from cpsam.config.run_options import RunOptions
from cpsam.errors import DataError, DivergedError, UserError
from cpsam.train import Recipe

ONE_STEP: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 29,
    "warmup_epochs": 0,
    "schedule": "cosine",
    "precision": "float32",
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": 1e30}, "the evaluation loss is nan"),
        ({"lr": 0.1, "weight_decay": 1e308}, "weights are not finite"),
    ],
)
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_run_that_diverges_in_its_last_step_is_not_done(
    tmp_path: Path, change: dict[str, float], says: str, average: float
) -> None:
    for _ in range(2):  # Repeating the command finds the same.
        with pytest.raises(DivergedError, match=r"not finite|evaluation loss is") as caught:
            run(tmp_path, recipe=Recipe(**ONE_STEP, **change, ema_decay=average))
        assert caught.value.exit_code == 4
        assert (
            not (tmp_path / "summary.json").exists()
            and not (tmp_path / "weights.safetensors").exists()
        )
    assert says in str(caught.value) or average


def test_weights_that_are_not_finite_at_the_start_are_not_blamed_on_images(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.conv.weight[0, 0, 1, 1] = float("nan")
    with pytest.raises(
        DataError, match=r"not finite before the first step: conv\.weight, the first of 1 of "
    ) as caught:
        run(tmp_path, model)
    assert "image" not in str(caught.value)


def test_a_clock_that_stands_still_is_no_division_by_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 5.0)
    assert run(tmp_path)["timing"]["train_seconds"] == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (name, value)
        for name in ("epochs", "batch_size", "accumulate")
        for value in (0, -1, 10**12, 10**400, 1.5, True, "2")
    ]
    + [
        (name, value)
        for name in ("lr", "weight_decay", "clip_norm", "mixup")
        for value in (-1, float("nan"), float("inf"), 10**400, "x")
    ]
    + [
        ("warmup_epochs", float("nan")),
        ("milestones", (float("nan"),)),
        ("ema_decay", 1),
        ("drop_rate", -0.1),
    ],
)
def test_absurd_recipes_are_refused_in_one_short_line(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=field) as caught:
        Recipe(**{field: value})
    assert len(str(caught.value)) < 200 and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("field", ["checkpoint_steps", "checkpoint_minutes", "keep", "max_minutes"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 10**400])
def test_absurd_options_are_refused(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{field} must be a"):
        RunOptions(**{field: value})


def test_ordinary_recipes_are_as_they_were() -> None:
    assert Recipe(**RECIPE.to_dict()) == RECIPE


def test_a_deterministic_run_is_the_same_run(tmp_path: Path) -> None:
    model, reference = tiny_model(), tiny_model()
    run(tmp_path / "run", model, options=RunOptions(deterministic=True))
    run(tmp_path / "reference", reference)
    assert_same_run(tmp_path / "run", model, tmp_path / "reference", reference)


class Unpooled(TinyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled, places = F.max_pool2d(x, 2, return_indices=True)
        return super().forward(F.max_unpool2d(pooled, places, 2, output_size=x.shape[2:]))


def test_a_deterministic_run_ends_at_an_operation_that_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="deterministic is not possible: max_unpooling2d_forward"):
        run(tmp_path / "refused", Unpooled(), options=RunOptions(deterministic=True))
    assert torch.get_deterministic_debug_mode() == 0
    run(tmp_path / "run", Unpooled())

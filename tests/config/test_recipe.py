"""A recipe refuses what cannot be meant, and says which field, which rule and what was given."""

import json
import subprocess
import sys

import pytest

from cpsam.errors import UserError
from cpsam.train import Recipe


def test_importing_the_recipe_imports_no_torch() -> None:
    code = (
        "import sys, cpsam.config.recipe; sys.exit('torch' in sys.modules or 'numpy' in"
        " sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("epochs", 0, "epochs must be a whole number from 1 to 1,000,000; got 0"),
        ("epochs", 2.0, "epochs must be a whole number from 1 to 1,000,000; got 2.0"),
        ("epochs", True, "epochs must be a whole number"),
        ("batch_size", 1, "batch_size must be a whole number from 2 to 1,000,000; got 1"),
        ("lr", 0.0, "lr must be a number above 0; got 0.0"),
        ("lr", "0.1", "lr must be a number above 0; got '0.1'"),
        ("lr", float("nan"), "got nan"),
        ("lr", float("inf"), "got inf"),
        ("momentum", 1.0, "momentum must be a number from 0 to below 1; got 1.0"),
        ("momentum", 0.0, "momentum must be above 0 for optimizer 'sgd'"),
        ("weight_decay", -1e-4, "weight_decay must be a number of at least 0; got -0.0001"),
        (
            "warmup_epochs",
            15,
            r"warmup_epochs must be a number from 0 to below epochs \(15\); got 15",
        ),
        ("warmup_epochs", -1, "warmup_epochs must be"),
        ("gamma", 0.0, "gamma must be a number above 0 and at most 1; got 0.0"),
        ("label_smoothing", 1.0, "label_smoothing must be a number from 0 to below 1; got 1.0"),
        ("augment", "yes", "augment must be true or false; got 'yes'"),
        ("milestones", (0.5, 0.5), r"milestones must grow; got \(0.5, 0.5\)"),
        # 0.9 of 15 epochs is epoch 13.5
        ("milestones", (0.9, 3), r"milestones must grow; got \(0.9, 3\)"),
        ("milestones", (0.0,), "milestones must be a number above 0; got 0.0"),
        ("milestones", 0.5, "milestones must be a list; got 0.5"),
        ("optimizer", "sdg", "unknown optimizer 'sdg': did you mean 'sgd'"),
        ("schedule", "one-cycle", "unknown schedule 'one-cycle': did you mean 'onecycle'"),
        (
            "precision",
            "bf16",
            "unknown precision 'bf16'.*Choices: auto, bfloat16, float16, float32",
        ),
        ("channels_last", True, "unknown channels_last True.*Choices: auto, off, on"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(field: str, value: object, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        Recipe(**{"epochs": 15, field: value})  # pyrefly: ignore
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_milestones_of_a_step_schedule_lie_within_the_run() -> None:
    with pytest.raises(UserError, match=r"before the end of the run \(epochs is 5\); got \(2, 5\)"):
        Recipe(epochs=5, schedule="step", milestones=(2, 5))
    assert Recipe(epochs=5, milestones=(2, 5)).schedule == "onecycle"  # which does not look at them


def test_a_recipe_comes_back_from_json() -> None:
    recipe = Recipe(epochs=9, milestones=(2, 5.5), schedule="step", warmup_epochs=1, augment=False)
    assert Recipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe

"""The options of a run change no result, and refuse values outside their ranges."""

from pathlib import Path

import pytest
from support.tiny_runs import records, run

from cpsam.config.run_options import RunOptions
from cpsam.errors import UserError
from cpsam.train import Recipe


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("checkpoint_steps", -1),
        ("checkpoint_minutes", float("nan")),
        ("keep", 0),
        ("max_minutes", -0.5),
    ],
)
def test_a_bad_value_is_refused(field: str, value: float) -> None:
    with pytest.raises(
        UserError,
        match=rf"{field} must be a (whole )?number from [01] to 1,000,000,000; got {value}",
    ):
        RunOptions(**{field: value})  # pyrefly: ignore


def test_other_options_leave_the_records_and_the_configuration_as_they_are(tmp_path: Path) -> None:
    run(tmp_path / "a", options=RunOptions(checkpoint_steps=1, keep=1))
    run(tmp_path / "b", options=RunOptions(checkpoint_minutes=0))
    assert records(tmp_path / "a") == records(tmp_path / "b")
    assert (tmp_path / "a" / "config.json").read_bytes() == (
        tmp_path / "b" / "config.json"
    ).read_bytes()


def test_what_is_off_is_not_in_the_description_of_a_run() -> None:
    names = set(Recipe().to_dict())
    later = {
        "accumulate",
        "clip_norm",
        "ema_decay",
        "mixup",
        "cutmix",
        "drop_rate",
        "drop_path",
        "sync_bn",
    }
    assert not names & later
    assert set(Recipe(ema_decay=0.9, accumulate=2).to_dict()) - names == {"ema_decay", "accumulate"}

"""Seals and checks the records of a run: the lines of `metrics.jsonl`, and `summary.json`.

A record carries a SHA-256 of itself and of the run's identity. The hash covers the timing, so it
lies under `timing`: what is outside that key stays comparable between two runs of the same
configuration.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from cpsam.errors import DataError
from cpsam.files import parse_json
from cpsam.identity import digest

SEAL = "sha256"
MOST = 2**53  # Counts above it are not exact in JSON.
COUNTS, NUMBERS, SHARES = (
    ("epoch", "epochs", "step", "steps", "n"),
    ("lr", "train_loss", "loss"),
    ("top1", "top5"),
)
TIMES = ("train_seconds", "evaluation_seconds", "images_per_s")
LINE = ("epoch", "step", "lr", "train_loss", "top1", "top5", "loss", "n")
SUMMARY_FIELDS = ("epochs", "steps", "train_loss", "top1", "top5", "loss", "n")


def sealed(record: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Returns a record with its hash under ``timing``."""
    return {**record, "timing": {**record["timing"], SEAL: digest(record, identity)}}


def check_seal(
    record: Mapping[str, Any], identity: str, where: str, required: bool = False
) -> None:
    """Checks the hash of a record. A record of an older version has none, and passes unless it is
    `required`.

    Raises:
        DataError: If the record is damaged or of another run.
    """
    timing = record["timing"]
    if SEAL not in timing:
        if required:
            raise DataError(
                f"{where}: timing.{SEAL} is missing, so the record is damaged or of another run"
            )
        return
    bare = {**record, "timing": {name: value for name, value in timing.items() if name != SEAL}}
    if timing[SEAL] != digest(bare, identity):
        raise DataError(
            f"{where}: its {SEAL} does not fit, so the record is damaged or of another run"
        )


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """Returns a line of `metrics.jsonl`, checked field by field."""
    try:
        record = parse_json(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    check_fields(record, LINE, where)
    return record


def check_fields(record: object, names: tuple[str, ...], where: str) -> None:
    """Checks that a record has these fields and a timing, each of its type and in its range.

    Raises:
        DataError: If it does not; names the field and its value.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: must be a JSON object; it is {short(record)}")
    for name in names:
        check_field(record, name, where)
    timing = record.get("timing")
    if not isinstance(timing, dict):
        raise DataError(f"{where}: timing must be an object; it is {short(timing)}")
    for name in TIMES:
        if not is_number(timing.get(name)) or timing[name] < 0:
            raise DataError(
                f"{where}: timing.{name} must be a number, at least 0; it is"
                f" {short(timing.get(name))}"
            )
    if unknown := timing.keys() - {*TIMES, SEAL}:
        raise DataError(f"{where}: timing has an unknown field {short(min(unknown))}")


def check_field(record: Mapping[str, Any], name: str, where: str) -> None:
    value = record.get(name)
    if name in COUNTS:
        rule, holds = (
            f"a whole number from 0 to {MOST:,}",
            type(value) is int and 0 <= value <= MOST,
        )
    elif name in SHARES:
        rule, holds = "a number from 0 to 1", is_number(value) and 0 <= value <= 1
    else:
        rule, holds = "a finite number", is_number(value)
    if not holds:
        raise DataError(
            f"{where}: {name} must be {rule}; it is"
            f" {'missing' if name not in record else short(value)}"
        )


def is_number(value: object) -> TypeGuard[float]:
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:
        return False


def short(value: object, most: int = 60) -> str:
    """Returns a value as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= most else text[: most - 1] + "…"

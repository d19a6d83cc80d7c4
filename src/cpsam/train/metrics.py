"""Reads and checks what a run measured: the lines of `metrics.jsonl`, and `summary.json`.

A record carries a SHA-256 of itself and of the run's identity. The hash covers the timing, so it
lies under `timing`. What is outside that key can be compared between two runs of the same
configuration.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from cpsam.errors import DataError
from cpsam.files import hash_json, parse_json, read_file, read_json
from cpsam.identity import check_identity, run_identity
from cpsam.text import shorten

METRICS, SUMMARY = "metrics.jsonl", "summary.json"
METRICS_BYTES = 2**30  # A million epochs have about 500 MB.
SEAL = "sha256"
MOST = 2**53  # Counts above it are not exact in JSON.
COUNTS = ("epoch", "epochs", "step", "steps", "n")
FRACTIONS = ("top1", "top5")
TIMES = ("train_seconds", "evaluation_seconds", "images_per_s")
LINE_FIELDS = ("epoch", "step", "lr", "train_loss", "top1", "top5", "loss", "n")
SUMMARY_FIELDS = ("epochs", "steps", "train_loss", "top1", "top5", "loss", "n")


def read_metrics(path: Path, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the metrics of a run, checked, one record per epoch.

    A last line that is only half written is left out.

    Raises:
        DataError: If a line is damaged or of another run.
    """
    # Half a line has no bytes after the end of its record. A whole line whose newline was flipped
    # to another byte has one.
    lines = [line for line in metric_lines(path) if line.endswith(b"\n") or b"}}" in line[:-1]]
    return checked_records(lines, run_identity(config), path / METRICS)


def metric_lines(path: Path) -> list[bytes]:
    """Returns the lines of the metrics of a run; none if there is no file."""
    try:
        return read_file(path / METRICS, METRICS_BYTES).splitlines(keepends=True)
    except FileNotFoundError:
        return []


def checked_records(lines: list[bytes], identity: str, file: Path) -> list[dict[str, Any]]:
    """Returns lines of metrics as records.

    Older versions wrote lines without a hash. After the first line with a hash, every line must
    have one.
    """
    records, required = [], False
    for number, line in enumerate(lines, 1):
        where = f"{file}: line {number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error})") from error
        check_fields(record, LINE_FIELDS, where)
        check_seal(record, identity, where, required)
        required = required or SEAL in record["timing"]
        records.append(record)
    return records


def read_summary(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the summary of the run of this configuration, checked; None if there is none.

    Older versions wrote summaries without identity and hash. These are taken as they are.

    Raises:
        DataError: If the summary is damaged or of another run.
    """
    summary, where = read_json(path / SUMMARY), str(path / SUMMARY)
    if summary is None:
        return None
    check_fields(summary, SUMMARY_FIELDS, where)
    best = summary.get("best")
    if not isinstance(best, dict):
        raise DataError(f"{where}: best must be an object with epoch and top1")
    for name in ("epoch", "top1"):
        check_field(best, name, f"{where}: best")
    check_identity(summary, config, where)
    check_seal(summary, run_identity(config), where, required="identity" in summary)
    return summary


def sealed(record: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Returns a record with its hash under ``timing``."""
    return {**record, "timing": {**record["timing"], SEAL: hash_json(record, identity)}}


def check_seal(
    record: Mapping[str, Any], identity: str, where: str, required: bool = False
) -> None:
    """Checks the hash of a record.

    A record of an older version has none, and passes unless the hash is `required`.

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
    if timing[SEAL] != hash_json(bare, identity):
        raise DataError(
            f"{where}: its {SEAL} does not fit, so the record is damaged or of another run"
        )


def check_fields(record: object, names: tuple[str, ...], where: str) -> None:
    """Checks that a record has these fields and a timing, each of its type and in its range.

    Raises:
        DataError: If it does not; names the field and its value.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: must be a JSON object; it is {shorten(record)}")
    for name in names:
        check_field(record, name, where)
    timing = record.get("timing")
    if not isinstance(timing, dict):
        raise DataError(f"{where}: timing must be an object; it is {shorten(timing)}")
    for name in TIMES:
        if not is_number(timing.get(name)) or timing[name] < 0:
            value = shorten(timing.get(name))
            raise DataError(f"{where}: timing.{name} must be a number, at least 0; it is {value}")
    if unknown := timing.keys() - {*TIMES, SEAL}:
        raise DataError(f"{where}: timing has an unknown field {shorten(min(unknown))}")


def check_field(record: Mapping[str, Any], name: str, where: str) -> None:
    value = record.get(name)
    if name in COUNTS:
        rule = f"a whole number from 0 to {MOST:,}"
        holds = type(value) is int and 0 <= value <= MOST
    elif name in FRACTIONS:
        rule, holds = "a number from 0 to 1", is_number(value) and 0 <= value <= 1
    else:
        rule, holds = "a finite number", is_number(value)
    if not holds:
        given = shorten(value) if name in record else "missing"
        raise DataError(f"{where}: {name} must be {rule}; it is {given}")


def is_number(value: object) -> TypeGuard[float]:
    """Returns whether a value of JSON is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False

"""A run on disk, as plain files: `config.json`, `environment.json`, `metrics.jsonl`,
`summary.json`, `checkpoints/`, `weights.safetensors`, `best.safetensors`.

The configuration is written first and the summary last, so a folder says by itself whether its run
is of this configuration and whether it is finished.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from cpsam.checkpoint import checkpoint_steps
from cpsam.errors import DataError, UserError
from cpsam.files import (
    append_durably,
    is_locked_file,
    open_lock,
    read_file,
    read_json,
    remove_leftovers,
    try_lock,
    write_atomically,
    write_json,
)
from cpsam.identity import check_identity, run_identity
from cpsam.train.sealed_records import (
    SUMMARY_FIELDS,
    check_field,
    check_fields,
    check_seal,
    parse_line,
    sealed,
)

CONFIG, ENVIRONMENT, METRICS, SUMMARY = (
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "summary.json",
)
CHECKPOINTS, WEIGHTS, BEST, LOCK = "checkpoints", "weights.safetensors", "best.safetensors", ".lock"
TENSORBOARD = "tensorboard"
SETTLED = "settled"  # in the configuration: what "auto" meant where the run began
METRICS_BYTES = 2**30  # A million epochs have about 500 MB.


class RunFolder:
    """The files of one run. Made by :func:`open_run`, which holds its lock.

    Args:
        path: The folder.
        config: The content of `config.json`.
        lock: The lock file that is held. None in a process that does not write.
    """

    def __init__(self, path: Path, config: dict[str, Any], lock: IO[str] | None = None) -> None:
        self.path = path
        self.config = config
        self.lock = lock
        self.records: list[Mapping[str, Any]] = []  # of `metrics.jsonl`, one per epoch

    @cached_property
    def identity(self) -> str:
        """What every file of this run carries, and no file of another run."""
        return run_identity(self.config)

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def newest_checkpoint(self) -> str:
        """Returns in words which checkpoint is the newest."""
        steps = checkpoint_steps(self.checkpoints)
        if not steps:
            return "there is no checkpoint yet"
        return f"the last checkpoint is of step {steps[-1]}"

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def best(self) -> Path:
        """The weights of the epoch with the highest top-1: a choice, so measure it on a validation
        split, or do not look at it.
        """
        return self.path / BEST

    @property
    def summary(self) -> dict[str, Any] | None:
        return read_summary(self.path, self.config)

    def check_lock(self) -> None:
        """Checks that this process alone may write here. Call it before every write.

        Raises:
            UserError: If somebody removed or replaced the lock file.
        """
        if self.lock is not None and not is_locked_file(self.lock, self.path / LOCK):
            raise UserError(
                f"run folder {self.path}: its lock file {LOCK} was removed or replaced, so another"
                " process may write here; stopped before the next write"
            )

    def keep_records(self, epochs: int) -> list[Mapping[str, Any]]:
        """Reads the metrics of the first epochs and drops what a killed epoch may have left behind
        them.

        Raises:
            DataError: If one of these epochs is missing or damaged.
        """
        lines = metric_lines(self.path)[:epochs]
        self.records = [*checked_records(lines, self.identity, self.path / METRICS)]
        if [record["epoch"] for record in self.records] != list(range(1, epochs + 1)):
            raise DataError(
                f"{self.path / METRICS}: the lines of epochs 1 to {epochs}, of which there is a"
                " checkpoint, are not all there"
            )
        self.check_lock()
        write_atomically(self.path / METRICS, b"".join(lines))
        return self.records

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Appends the metrics of an epoch; they are on the disk when this returns."""
        self.check_lock()
        append_durably(
            self.path / METRICS,
            (json.dumps(sealed(record, self.identity), allow_nan=False) + "\n").encode(),
        )
        self.records.append(record)

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Writes where the run was begun, and, if that changed, where it was resumed."""
        self.check_lock()
        first = read_json(self.path / ENVIRONMENT)
        if first is None:
            write_json(self.path / ENVIRONMENT, environment)
            return
        resumed = first.get("resumed", [])
        if not isinstance(resumed, list):
            raise DataError(f"{self.path / ENVIRONMENT}: resumed must be a list")
        if environment not in (
            {name: value for name, value in first.items() if name != "resumed"},
            *resumed,
        ):
            write_json(self.path / ENVIRONMENT, {**first, "resumed": [*resumed, environment]})

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes the summary, the last file; returns it as it is read again."""
        self.check_lock()
        summary = sealed({**summary, "identity": self.identity}, self.identity)
        write_json(self.path / SUMMARY, summary)
        return plain(summary)


def metric_lines(path: Path) -> list[bytes]:
    """Returns the lines of the metrics of a run, none if there is no file."""
    try:
        return read_file(path / METRICS, METRICS_BYTES).splitlines(keepends=True)
    except FileNotFoundError:
        return []


def checked_records(lines: list[bytes], identity: str, file: Path) -> list[dict[str, Any]]:
    """Returns lines of metrics as records. Older versions wrote lines without a hash; after the
    first line with one, all must have it.
    """
    records, required = [], False
    for number, line in enumerate(lines, 1):
        where = f"{file}: line {number}"
        record = parse_line(line, where)
        check_seal(record, identity, where, required)
        required = required or "sha256" in record["timing"]
        records.append(record)
    return records


def read_metrics(path: Path, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the metrics of a run, a record per epoch, checked; a last line that is only half
    there is left out.

    Raises:
        DataError: If a line is damaged or of another run.
    """
    # Half a line never goes on after the end of its record, and a whole one whose last bit was
    # flipped does.
    lines = [line for line in metric_lines(path) if line.endswith(b"\n") or b"}}" in line[:-1]]
    return checked_records(lines, run_identity(config), path / METRICS)


def read_summary(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the summary of the run of this configuration, checked; None if there is none.

    Older versions wrote summaries without identity and hash; these are taken as they are.

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


def finished_summary(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of a finished run; None if it is not finished or not begun.

    Raises:
        UserError: If the folder holds a run of another configuration, or something else.
    """
    begun = check_config(path, config)
    return None if begun is None else read_summary(path, begun)


@contextmanager
def open_run(path: Path, config: Mapping[str, Any]) -> Iterator[RunFolder]:
    """A run of this configuration in this folder, new or begun, for this process alone.

    Args:
        path: The folder; made if missing.
        config: Plain data (JSON types). Under "settled" is what a new run shall compute with; a run
            that was begun keeps its own.

    Raises:
        UserError: If the folder holds a run of another configuration, other files, or is in use.
            Nothing in it is changed then.
    """
    check_config(path, config)
    for name, kind in {LOCK: "file", CHECKPOINTS: "folder", TENSORBOARD: "folder"}.items():
        if (path / name).is_symlink():
            raise UserError(f"run folder {path}: {name} is a link, and must be a {kind}; remove it")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open_lock(path / LOCK)
    except OSError as error:
        raise UserError(f"run folder {path} cannot be written ({error.strerror})") from error
    with lock:
        hold(lock, path)
        remove_leftovers(path)
        begun = check_config(path, config)  # once more: another process may have begun it meanwhile
        if begun is None:
            write_json(path / CONFIG, config)
        yield RunFolder(path, begun if begun is not None else plain(config), lock)


def hold(lock: IO[str], path: Path) -> None:
    """Takes the lock, which the system takes back when this process ends, however it ends."""
    if not try_lock(lock):
        holder = "".join(filter(str.isprintable, lock.read(200)))
        raise UserError(f"run folder {path} is in use by {holder or 'another process'}")
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {platform.node()}\n")
    lock.flush()


def check_config(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration that the folder has, or None if it has none yet."""
    if path.exists() and not path.is_dir():
        raise UserError(f"run folder {path} is a file")
    begun = read_json(path / CONFIG)
    if begun is None:
        others = (
            sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
            if path.exists()
            else []
        )
        if others:
            raise UserError(
                f"run folder {path} holds other files ({others[0]!r} first) and no {CONFIG}; give"
                " an empty or a new folder"
            )
        return None
    wanted = {name: value for name, value in plain(config).items() if name != SETTLED}
    there = {name: value for name, value in begun.items() if name != SETTLED}
    if (difference := first_difference(there, wanted)) is not None:
        name, old, new = difference
        raise UserError(
            f"run folder {path} holds a run of another configuration: {name} is {old} there and"
            f" {new} here"
        )
    return begun


MISSING = object()


def first_difference(old: object, new: object, name: str = "") -> tuple[str, str, str] | None:
    """The dotted name of the first value in which two pieces of plain data differ, and both values
    as JSON.

    Example:
        >>> first_difference({"recipe": {"lr": 0.3}}, {"recipe": {"lr": 0.1, "epochs": 3}})
        ('recipe.lr', '0.3', '0.1')
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            inner = first_difference(
                old.get(key, MISSING), new.get(key, MISSING), f"{name}.{key}" if name else key
            )
            if inner is not None:
                return inner
        return None
    if old == new and isinstance(old, bool) == isinstance(new, bool):
        return None
    there, here = ("missing" if value is MISSING else json.dumps(value) for value in (old, new))
    return name, there, here


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON: tuples as lists, keys as words."""
    return json.loads(json.dumps(config))

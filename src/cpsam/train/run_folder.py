"""A run on disk, as plain files: `config.json`, `environment.json`, `metrics.jsonl`, `summary.json`, `checkpoints/`, `weights.safetensors`,
`best.safetensors`.

The configuration is written first and the summary last, so a folder says by itself whether its run is of this configuration and whether
it is finished.
"""

import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cpsam.checkpoint import write_atomically
from cpsam.errors import DataError, UserError

CONFIG, ENVIRONMENT, METRICS, SUMMARY = "config.json", "environment.json", "metrics.jsonl", "summary.json"
CHECKPOINTS, WEIGHTS, BEST, LOCK = "checkpoints", "weights.safetensors", "best.safetensors", ".lock"
SETTLED = "settled"  # in the configuration: what "auto" meant where the run began


class RunFolder:
    """The files of one run. Made by :func:`open_run`, which holds its lock.

    Args:
        path: The folder.
        config: The content of `config.json`.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self.records: list[dict[str, Any]] = []  # of `metrics.jsonl`, one an epoch

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def best(self) -> Path:
        """The weights of the epoch with the highest top-1: a choice, so measure it on a validation split, or do not look at it."""
        return self.path / BEST

    @property
    def summary(self) -> dict[str, Any] | None:
        return read_json(self.path / SUMMARY)

    def keep_records(self, epochs: int) -> list[dict[str, Any]]:
        """Read the metrics of the first epochs and drop what a killed epoch may have left behind them.

        Raises:
            DataError: If one of these epochs is missing.
        """
        lines = (self.path / METRICS).read_bytes().splitlines(keepends=True) if (self.path / METRICS).exists() else []
        try:
            self.records = [json.loads(line) for line in lines[:epochs]]
        except ValueError:
            self.records = []
        if [record["epoch"] for record in self.records] != list(range(1, epochs + 1)):
            raise DataError(f"{self.path / METRICS}: the lines of epochs 1 to {epochs}, of which there is a checkpoint, are not all there")
        write_atomically(self.path / METRICS, b"".join(lines[:epochs]))
        return self.records

    def add_record(self, record: dict[str, Any]) -> None:
        """Append the metrics of an epoch; they are on the disk when this returns."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Write where the run was begun, and, if that changed, where it was resumed."""
        first = read_json(self.path / ENVIRONMENT)
        if first is None:
            write_json(self.path / ENVIRONMENT, environment)
        elif environment not in ({name: value for name, value in first.items() if name != "resumed"}, *first.get("resumed", [])):
            write_json(self.path / ENVIRONMENT, {**first, "resumed": [*first.get("resumed", []), environment]})

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write the summary, the last file; returns it as it is read again."""
        write_json(self.path / SUMMARY, summary)
        return plain(summary)


def finished_summary(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of a finished run; None if it is not finished or not begun.

    Raises:
        UserError: If the folder holds a run of another configuration, or something else.
    """
    check_config(path, config)
    return read_json(path / SUMMARY)


@contextmanager
def open_run(path: Path, config: Mapping[str, Any]) -> Iterator[RunFolder]:
    """A run of this configuration in this folder, new or begun, for this process alone.

    Args:
        path: The folder; made if missing.
        config: Plain data (JSON types). Under "settled" is what a new run shall compute with; a run that was begun keeps its own.

    Raises:
        UserError: If the folder holds a run of another configuration, other files, or is in use. Nothing in it is changed then.
    """
    check_config(path, config)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"run folder {path} cannot be written ({error.strerror})") from error
    with lock:
        hold(lock, path)
        begun = check_config(path, config)  # once more: another process may have begun it meanwhile
        if begun is None:
            write_json(path / CONFIG, config)
        yield RunFolder(path, begun if begun is not None else plain(config))


def hold(lock: IO[str], path: Path) -> None:
    """Take the lock, which the system takes back when this process ends, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        raise UserError(f"run folder {path} is in use by {lock.read().strip() or 'another process'}") from error
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {platform.node()}\n")
    lock.flush()


def check_config(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration that the folder has, or None if it has none yet."""
    if path.exists() and not path.is_dir():
        raise UserError(f"run folder {path} is a file")
    begun = read_json(path / CONFIG)
    if begun is None:
        others = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(".")) if path.exists() else []
        if others:
            raise UserError(f"run folder {path} holds other files ({others[0]!r} first) and no {CONFIG}; give an empty or a new folder")
        return None
    wanted = {name: value for name, value in plain(config).items() if name != SETTLED}
    there = {name: value for name, value in begun.items() if name != SETTLED}
    if (difference := first_difference(there, wanted)) is not None:
        name, old, new = difference
        raise UserError(f"run folder {path} holds a run of another configuration: {name} is {old} there and {new} here")
    return begun


MISSING = object()


def first_difference(old: object, new: object, name: str = "") -> tuple[str, str, str] | None:
    """The dotted name of the first value in which two pieces of plain data differ, and both values as JSON.

    Example:
        >>> first_difference({"recipe": {"lr": 0.3, "epochs": 2}}, {"recipe": {"lr": 0.1, "epochs": 3}})
        ('recipe.lr', '0.3', '0.1')
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            inner = first_difference(old.get(key, MISSING), new.get(key, MISSING), f"{name}.{key}" if name else key)
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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(data, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """None if there is no such file.

    Raises:
        DataError: If it is not JSON, or no object, as all that we write is.
    """
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a JSON object")
    return content

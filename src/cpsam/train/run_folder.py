"""A run on disk, as plain files.

The files are `config.json`, `environment.json`, `metrics.jsonl`, `summary.json`, `checkpoints/`,
`weights.safetensors` and `best.safetensors`.

The configuration is written first and the summary last. So a folder itself says whether its run is
of this configuration and whether it is finished.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from cpsam.checkpoint import checkpoint_steps
from cpsam.errors import DataError, UserError
from cpsam.files import (
    append_durably,
    read_json,
    remove_leftovers,
    write_atomically,
    write_json,
)
from cpsam.identity import run_identity
from cpsam.locks import Lock, acquire
from cpsam.train.metrics import (
    METRICS,
    SUMMARY,
    checked_records,
    metric_lines,
    read_summary,
    sealed,
)
from cpsam.train.run_config import CONFIG, check_config, plain

ENVIRONMENT, CHECKPOINTS, TENSORBOARD = "environment.json", "checkpoints", "tensorboard"
WEIGHTS, BEST, LOCK = "weights.safetensors", "best.safetensors", ".lock"


class RunFolder:
    """The files of one run. :func:`open_run` makes it and acquires its lock.

    Args:
        path: The folder.
        config: The content of `config.json`.
        lock: The lock file that is locked. None in a process that does not write.
    """

    def __init__(self, path: Path, config: dict[str, Any], lock: Lock | None = None) -> None:
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
        """The weights of the epoch with the highest top-1.

        The evaluation split chooses them, so use them only if that is a validation split.
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
        if self.lock is not None and not self.lock.in_place:
            raise UserError(
                f"run folder {self.path}: its lock file {LOCK} was removed or replaced, so another"
                " process may write here; stopped before the next write"
            )

    def keep_records(self, epochs: int) -> list[Mapping[str, Any]]:
        """Reads the metrics of the first epochs, and drops what a killed epoch left behind them.

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
        """Appends the metrics of an epoch. They are on the disk when this returns."""
        self.check_lock()
        line = json.dumps(sealed(record, self.identity), allow_nan=False) + "\n"
        append_durably(self.path / METRICS, line.encode())
        self.records.append(record)

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Writes where the run was begun, and where it was resumed if that differs."""
        self.check_lock()
        file = self.path / ENVIRONMENT
        first = read_json(file)
        if first is None:
            write_json(file, environment)
            return
        resumed = first.get("resumed", [])
        if not isinstance(resumed, list):
            raise DataError(f"{file}: resumed must be a list")
        begun = {name: value for name, value in first.items() if name != "resumed"}
        if environment not in (begun, *resumed):
            write_json(file, {**first, "resumed": [*resumed, environment]})

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes the summary, the last file, and returns it as it is read again."""
        self.check_lock()
        summary = sealed({**summary, "identity": self.identity}, self.identity)
        write_json(self.path / SUMMARY, summary)
        return plain(summary)


def finished_summary(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the summary of a finished run; None if the run is not finished or not begun.

    Raises:
        UserError: If the folder holds a run of another configuration, or something else.
    """
    begun = check_config(path, config)
    return None if begun is None else read_summary(path, begun)


@contextmanager
def open_run(path: Path, config: Mapping[str, Any]) -> Iterator[RunFolder]:
    """Opens the folder of a run of this configuration, new or begun, for this process alone.

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
    with ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(acquire(path / LOCK))
        except OSError as error:
            raise UserError(f"run folder {path} cannot be written ({error.strerror})") from error
        if not lock.held:
            raise UserError(f"run folder {path} is in use by {lock.holder or 'another process'}")
        lock.sign(f"process {os.getpid()} on {platform.node()}")
        remove_leftovers(path)
        begun = check_config(path, config)  # Another process may have begun the run meanwhile.
        if begun is None:
            write_json(path / CONFIG, config)
        yield RunFolder(path, begun if begun is not None else plain(config), lock)

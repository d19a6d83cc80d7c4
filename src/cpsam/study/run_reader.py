"""Reads the runs of a study, each finished one once."""

from pathlib import Path

from cpsam.run.records import StoredRun, read_run


class RunReader:
    """Reads runs by the names of their folders.

    A run that has ended does not change, so it is read once. A run that has not is read each time.

    Args:
        folder: Of the study.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: dict[str, StoredRun] = {}

    def __call__(self, name: str) -> StoredRun:
        """Returns the run in the folder of this name.

        Raises:
            DataError: If a file of it is damaged or of another run.
        """
        if name in self.ended:
            return self.ended[name]
        stored = read_run(self.folder / name)
        if stored.outcome is not None:
            self.ended[name] = stored
        return stored

    def has_ended(self, name: str) -> bool:
        return self(name).outcome is not None

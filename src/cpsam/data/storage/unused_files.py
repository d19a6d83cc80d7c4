"""Counts the files that a data set does not use, by reason, and names the first ones."""

from pathlib import PurePosixPath

from cpsam.text import printable

SHOWN = 3


class Unused:
    """Counts files that are not used.

    Example:
        >>> unused = Unused()
        >>> unused.add("not images", "cat/notes.txt")
        >>> unused.lines()
        ('not used: 1 file in 1 folder, not images: cat/notes.txt',)
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.folders: dict[str, set[str]] = {}
        self.first: dict[str, list[str]] = {}

    def add(self, reason: str, path: str) -> None:
        """Counts a file; `path` starts from the root of the data set."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.folders.setdefault(reason, set()).add(str(PurePosixPath(path).parent))
        named = self.first.setdefault(reason, [])
        if len(named) < SHOWN:
            named.append(printable(path))

    def lines(self) -> tuple[str, ...]:
        """Returns one line per reason."""
        lines = []
        for reason, count in self.counts.items():
            where = f"{plural(count, 'file')} in {plural(len(self.folders[reason]), 'folder')}"
            lines.append(f"not used: {where}, {reason}: {shown(self.first[reason], count)}")
        return tuple(lines)


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def shown(first: list[str], count: int) -> str:
    """Returns the first names of `count`, and a mark if there are more."""
    return ", ".join(first) + (", …" if count > len(first) else "")

"""Finds the image files of a folder and the folders in it; says why another file is not one."""

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cpsam.data.decode import MAX_IMAGE_BYTES
from cpsam.data.storage.cache_folder import ENTRY, cache_identity
from cpsam.data.storage.own_folders import is_own
from cpsam.data.storage.unused_files import SHOWN, Unused, shown
from cpsam.errors import DataError
from cpsam.files import KINDS, open_regular
from cpsam.text import printable

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".tga",
    ".jp2",
)
# These are images too. If they were skipped, they would be lost.
UNREAD_SUFFIXES = (".gif", ".heic", ".heif", ".avif", ".j2k", ".jpx", ".jxl")
# In lower case. As hidden files, they are not images.
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")
SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP", re.DOTALL)

OnFault = Callable[[Path, str], None]  # what is wrong, and why
Found = tuple[str, os.stat_result]


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES or ENTRY.fullmatch(name) is not None


def subfolders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones.

    They are none if it is not a folder.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = {entry.name: is_folder(entry) for entry in entries}
    return sorted(name for name, inside in found.items() if inside and not is_hidden(name))


def contents(folder: Path) -> str:
    """Returns the first names in a folder; "nothing" if it is empty or cannot be read."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not is_hidden(path.name))
    except OSError:
        names = []
    return shown([printable(name) for name in names[:SHOWN]], len(names)) or "nothing"


class Walk:
    """Walks through the files of a data set, through each folder once.

    Args:
        root: The folder of the data set. Paths are relative to it.
        skip: Images to leave out; one that is met is removed from it.
        on_fault: Told of whatever keeps an image from being used.
    """

    def __init__(self, root: Path, skip: set[str], on_fault: OnFault) -> None:
        self.root, self.skip, self.on_fault = root, skip, on_fault
        self.unused = Unused()
        self.seen: dict[tuple[int, int], str] = {}
        self.cache = cache_identity()
        self.own: list[str] = []  # folders of our own that were met
        self.known: set[str] = set()  # files that are read for something else

    def images(self, inner: str, *, deep: bool = True) -> Iterator[Found]:
        """Yields path and status of the images in a folder by name, then of those in its folders.

        Args:
            inner: The folder, relative to the root; "" for the root itself.
            deep: Whether to look into the folders in it.
        """
        pending = [inner]
        while pending:
            current = pending.pop()
            entries = self.entries(current)
            folders = []
            for entry in entries:
                path = f"{current}/{entry.name}" if current else entry.name
                if not is_folder(entry):
                    if self.is_image(path):
                        yield from self.usable(entry, path)
                elif deep:
                    folders.append(path)
            pending += reversed(folders)

    def entries(self, inner: str) -> list["os.DirEntry[str]"]:
        """Returns what is in a folder, by name, without hidden files."""
        folder = self.root / inner
        try:
            status = folder.stat()
            identity = status.st_dev, status.st_ino
            before = self.seen.setdefault(identity, inner)
            if before != inner:
                self.on_fault(folder, f"the same folder as {self.root / before}, through a link")
                return []
            with os.scandir(folder) as found:
                entries = {entry.name: entry for entry in found}
            if inner and (identity == self.cache or is_own(entries)):
                self.own.append(inner)
                return []
            return [entries[name] for name in sorted(entries) if not is_hidden(name)]
        except OSError as error:
            self.on_fault(folder, f"cannot be read ({error.strerror})")
            return []

    def is_image(self, path: str) -> bool:
        """Whether a file is an image by its suffix or, without a suffix, by its first bytes.

        Any other file is counted as not used.
        """
        suffix = Path(path).suffix.lower()
        if suffix in SUFFIXES or suffix in UNREAD_SUFFIXES or path in self.skip:
            return True
        if not suffix and starts_as_image(self.root / path):
            return True
        if path not in self.known:
            self.unused.add("not images by their names", path)
        return False

    def usable(self, entry: "os.DirEntry[str]", path: str) -> Iterator[Found]:
        if path in self.skip:
            self.skip.remove(path)
            return
        reason, suffix = None, Path(path).suffix.lower()
        try:
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                reason = (
                    "must be a regular file; it is"
                    f" {KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}"
                )
            elif status.st_size > MAX_IMAGE_BYTES:
                reason = f"must have at most {MAX_IMAGE_BYTES:,} bytes; it has {status.st_size:,}"
        except OSError as error:
            reason, status = f"cannot be read ({error.strerror})", None
        if suffix in UNREAD_SUFFIXES:
            reason = f"{suffix} is not read; convert it to .png or .jpg, or move it away"
        if reason is not None:
            self.on_fault(self.root / path, reason)
        elif status is not None:
            yield path, status


def is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def starts_as_image(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return SIGNATURE.match(file.read(12)) is not None
    except (OSError, DataError):
        return False

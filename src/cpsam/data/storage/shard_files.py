"""Finds the parquet shards of a folder: which files belong to which split."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cpsam.data.storage.image_files import is_hidden, subfolders
from cpsam.data.storage.own_folders import is_own
from cpsam.data.storage.split_names import TEST, TRAIN, VALIDATION, choose
from cpsam.data.storage.unused_files import Unused
from cpsam.errors import DataError

# The file, the row if the fault is about one row, and what is wrong.
OnShardFault = Callable[[Path, int | None, str], None]


def parquet_files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.glob("*") if is_parquet(path) and not is_hidden(path.name)
    )


def is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def split_of(path: Path) -> str:
    """Returns the name of the split that a file's name begins with, or ""."""
    word = re.match(r"[a-z]*", path.name.lower())
    return word[0] if word and word[0] in TRAIN + VALIDATION + TEST else ""


def shards_by_name(root: Path) -> dict[str, list[Path]]:
    """Returns the parquet files of a folder, or of ``data/`` in it, by split.

    The name of the split, in lower case, is the first word of the file's name, as in
    ``train-00000-of-00001.parquet``. Or it is the file's folder, as in ``train/0000.parquet``.
    Files of no split are under "".
    """
    found: dict[str, list[Path]] = {}
    for folder in (root, root / "data"):
        for path in parquet_files(folder):
            found.setdefault(split_of(path), []).append(path)
        for name in choose(subfolders(folder), TRAIN + VALIDATION + TEST):
            if inside := parquet_files(folder / name):
                found.setdefault(name.lower(), []).extend(inside)
    return found


def has_shards(root: Path) -> bool:
    """Whether a folder is a data set of parquet shards, not a tree of images."""
    found = shards_by_name(root)
    return bool(found.keys() - {""}) or (
        bool(found) and not any(name != "data" for name in subfolders(root))
    )


def split_shards(
    root: Path, advice: str, on_fault: OnShardFault
) -> tuple[dict[str, list[Path]], Unused]:
    """Returns the shards of "train" and "test", and the files that are not used.

    Raises:
        DataError: If a split has no shards, or if the files can be understood in two ways.
    """
    found = shards_by_name(root)
    named = {
        "train": choose(found, TRAIN),
        "test": choose(found, VALIDATION) or choose(found, TEST),
    }
    unused = Unused()
    splits: dict[str, list[Path]] = {}
    for split, names in named.items():
        if not names:
            wanted = "train" if split == "train" else "validation"
            raise DataError(f"no {wanted}-*.parquet in {root} or {root / 'data'}; {advice}")
        if len(names) > 1:
            raise DataError(
                f"{root}: both {names[0]} and {names[1]} shards may be the {split} split; rename"
                " one or move it away"
            )
        splits[split] = found[names[0]]
        folders = sorted({path.parent for path in splits[split]})
        if len(folders) > 1:
            raise DataError(
                f"{root}: {names[0]} shards are in {folders[0]} and in {folders[1]}; move one of"
                " them away"
            )
        if reason := incomplete(splits[split], names[0]):
            on_fault(splits[split][0], None, reason)
        inside = (
            subfolders(folders[0] / names[0]) if split == "train" and folders[0] == root else []
        )
        if inside:
            raise DataError(
                f"{root}: both {names[0]}/{inside[0]}/ and parquet shards are there; move one of"
                " them away"
            )
    used = {path for paths in splits.values() for path in paths}
    for name, paths in found.items():
        for path in paths:
            if path not in used:
                reason = (
                    f"{name} shards beside {named['test'][0]} shards"
                    if name
                    else "parquet files of no split by their names"
                )
                unused.add(reason, path.relative_to(root).as_posix())
    known = {path for paths in found.values() for path in paths}
    for path in sorted(visible_files(root)):
        if path not in known:
            reason = "parquet files in other folders" if is_parquet(path) else "not parquet"
            unused.add(reason, path.relative_to(root).as_posix())
    return splits, unused


def visible_files(root: Path) -> Iterator[Path]:
    """Yields the files in a folder and its folders, without hidden ones and our own output."""
    for folder, inside, names in os.walk(root):
        if folder != str(root) and is_own([*inside, *names]):
            inside.clear()
            continue
        inside[:] = [name for name in inside if not is_hidden(name)]
        yield from (Path(folder, name) for name in names if not is_hidden(name))


def incomplete(paths: Sequence[Path], split: str) -> str | None:
    """Returns what is wrong if one of several numbered shards is missing."""
    numbers: dict[int, Path] = {}
    for path in paths:
        numbered = re.search(r"-(\d+)-of-(\d+)", path.name)
        if not numbered:
            continue
        if int(numbered[2]) != len(paths):
            return (
                f"one of {int(numbered[2])} files by its name, but {len(paths)} {split} files are"
                f" in {path.parent}"
            )
        other = numbers.setdefault(int(numbered[1]), path)
        if other != path:
            return (
                f"has the same number as {path.name}, so another of {len(paths)} {split} files is"
                " missing"
            )
    return None


def find_shards(folders: Sequence[Path], split: str, advice: str) -> list[Path]:
    """Returns the parquet files of one split, in order, complete.

    Args:
        folders: Folders to look in; the first one that has any is used.
        split: The beginning of the files' names, such as ``"train"``.
        advice: The end of the error message: what to do if there are none.

    Raises:
        DataError: If there are none, or one of several is missing.
    """
    paths = next(
        (found for folder in folders if (found := sorted(folder.glob(f"{split}-*.parquet")))), []
    )
    if not paths:
        raise DataError(f"no {split}-*.parquet in {' or '.join(map(str, folders))}; {advice}")
    if reason := incomplete(paths, split):
        raise DataError(f"{paths[0]}: {reason}")
    return paths

"""Lists the images of one split: in a folder per class, or with their classes in a file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpsam.data.split import Indices
from cpsam.data.storage.image_files import Found, OnFault, Walk, contents, subfolders
from cpsam.data.storage.split_names import TEST, TRAIN, VALIDATION, choose
from cpsam.errors import DataError
from cpsam.files import read_file

# Of tiny-imagenet: one line per image, which begins with NAME, a tab and CLASS.
ANNOTATIONS = "val_annotations.txt"
ANNOTATIONS_BYTES = 1 << 28
EXPECTED = "images must be in a folder per class, as in train/CLASS/ and val/CLASS/, or CLASS/"
# Next to one of TARGETS, a folder of these names holds images for detection or segmentation.
IMAGES = ("images", "image", "imgs", "img", "jpegimages")
TARGETS = ("labels", "label", "annotations", "masks", "mask", "segmentationclass")


@dataclass(frozen=True)
class Listing:
    """Holds the image files of a split: by class, and by name within a class.

    Args:
        classes: Names of the class folders, sorted.
        paths: Relative to the root.
        labels: (N,).
        stamps: Size in bytes and time of change in nanoseconds of each file. They stand for its
            content.
    """

    classes: tuple[str, ...]
    paths: list[str]
    labels: Indices
    stamps: list[tuple[int, int]]

    def take(self, samples: Indices) -> "Listing":
        chosen = samples.tolist()
        return Listing(
            self.classes,
            [self.paths[i] for i in chosen],
            self.labels[samples],
            [self.stamps[i] for i in chosen],
        )


class ClassLister:
    """Lists splits of one data set.

    Args:
        root: The folder of the data set.
        walk: Finds the images.
        left_out: Names of the files that are left out on request.
        on_fault: Told of whatever keeps a file or a class from being used.
    """

    def __init__(self, root: Path, walk: Walk, left_out: set[str], on_fault: OnFault) -> None:
        self.root, self.walk, self.left_out, self.on_fault = root, walk, left_out, on_fault
        self.deeper: list[str] = []  # images in folders inside a class folder

    def list_classes(self, folder: str) -> Listing:
        """Lists the images of ``root/folder/CLASS/``."""
        names = subfolders(self.root / folder)
        self.refuse_other_tasks(folder, names)
        classes, paths, labels, stamps = [], [], [], []
        for name in names:
            inner = f"{folder}/{name}" if folder else name
            files = list(self.walk.images(inner))
            if not files and any(
                path == inner or path.startswith(f"{inner}/") for path in self.walk.own
            ):
                continue
            deeper = [path for path, _ in files if path.count("/") > inner.count("/") + 1]
            inside = (
                {path.removeprefix(f"{inner}/").partition("/")[0] for path in deeper}
                if files
                else subfolders(self.root / inner)
            )
            if choose(inside, TRAIN) and choose(inside, VALIDATION + TEST):
                raise DataError(
                    f"{self.root / inner}: holds splits; name it as the folder of the data set, or"
                    " move it away"
                )
            self.deeper += deeper
            if not files:
                self.on_fault(
                    self.root / inner,
                    f"no images in this class folder; it has {contents(self.root / inner)}",
                )
            paths += [path for path, _ in files]
            labels += [len(classes)] * len(files)
            stamps += [(status.st_size, status.st_mtime_ns) for _, status in files]
            classes.append(name)
        if not classes:
            raise self.no_classes(folder)
        return Listing(tuple(classes), paths, np.array(labels, np.int64), stamps)

    def no_classes(self, folder: str) -> DataError:
        where = self.root / folder
        return DataError(f"{where}: no class folders in it; it has {contents(where)}; {EXPECTED}")

    def refuse_other_tasks(self, folder: str, names: list[str]) -> None:
        """Refuses the layouts of detection and segmentation, whose folders are no classes."""
        images, targets = (
            [name for name in names if name.lower() in words] for words in (IMAGES, TARGETS)
        )
        if images and targets:
            what = f"{images[0]}/ and {targets[0]}/ are the layout of detection or segmentation"
            raise DataError(f"{self.root / folder}: {what}; {EXPECTED}")

    def list_test(self, folder: str) -> Listing:
        annotations = self.root / folder / ANNOTATIONS
        if not annotations.is_file():
            return self.list_classes(folder)
        self.walk.known.add(f"{folder}/{ANNOTATIONS}")
        return self.list_annotated(folder, annotations)

    def list_annotated(self, folder: str, annotations: Path) -> Listing:
        """Lists images whose classes are in a file, as tiny-imagenet has them."""
        try:
            rows = [
                line.split("\t")
                for line in read_file(annotations, ANNOTATIONS_BYTES).decode().splitlines()
                if line
            ]
            class_of = {row[0]: row[1] for row in rows}
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{annotations}: not lines of an image and its class, between tabs, in UTF-8"
            ) from error
        if len(class_of) < len(rows):
            raise DataError(f"{annotations}: names an image twice")
        files: list[tuple[str, Found]] = []
        for found in self.walk.images(folder):
            name = Path(found[0]).name
            if name in class_of:
                files.append((class_of.pop(name), found))
            else:
                self.on_fault(
                    self.root / found[0], f"no line in {ANNOTATIONS}, or it is there twice"
                )
        for name in sorted(class_of.keys() - self.left_out):
            self.on_fault(annotations, f"names {name!r}, which is not there")
        classes = tuple(sorted({name for name, _ in files}))
        number = {name: label for label, name in enumerate(classes)}
        files.sort(key=lambda item: (item[0], item[1][0]))
        stamps = [(status.st_size, status.st_mtime_ns) for _, (_, status) in files]
        return Listing(
            classes,
            [path for _, (path, _) in files],
            np.array([number[name] for name, _ in files], np.int64),
            stamps,
        )

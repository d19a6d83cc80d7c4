"""Defines a data set: two splits with labels, and what training must know about them."""

from dataclasses import dataclass, replace

from cpsam.data.split import Split
from cpsam.data.streamed_split import StreamedSplit


@dataclass(frozen=True, eq=False)
class Dataset:
    """Holds a data set of which batches can be made.

    Args:
        name: One of `DATASETS`.
        train: What is trained on; a :class:`cpsam.data.StreamedSplit` if each image is read when
            its batch needs it.
        evaluation: What is measured on.
        classes: Names of the classes, in the order of the labels.
        mean: Mean of ``pixels / 255`` over the train split, one number per channel.
        std: Its standard deviation, likewise, at least 1/255.
        padding: Pixels of zeros around an image, which is then cropped to its size at random.
        flip: Whether a mirror image shows the same class; False for digits.
        fingerprint: SHA-256 of what a run depends on: pixels, labels, their order, class names.
        note: A line that a reader of results must know, or "".
        skipped: Bad images that were left out, as :func:`cpsam.data.verify.verify` names them.
        notes: What a person must know before a run, one line each: how the splits were told apart,
            and what is not used.
        evaluation_name: What `evaluation` is: "test split", or after :func:`cpsam.data.hold_out`
            "validation split". Results store it as "measured_on".
    """

    name: str
    train: Split | StreamedSplit
    evaluation: Split | StreamedSplit
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int
    flip: bool
    fingerprint: str
    note: str = ""
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evaluation_name: str = "test split"

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        return self.train.image_shape[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.train.image_shape[1:]

    def unaugmented(self) -> "Dataset":
        """Returns the data set whose train split is batched without augmentation."""
        train = self.train if isinstance(self.train, Split) else replace(self.train, augment=False)
        return replace(self, train=train, padding=0, flip=False)

"""Names that folders and files of a split have, as timm and the Hugging Face hub know them."""

from collections.abc import Iterable

TRAIN = ("train", "training")
VALIDATION = ("val", "validation", "valid", "dev")
TEST = ("test", "testing", "eval", "evaluation")


def split_kind(name: str) -> tuple[str, ...] | None:
    """Returns the group of names that `name` belongs to, whatever its case and the number behind
    it.

    Example:
        >>> split_kind("Valid") is VALIDATION, split_kind("train2017") is TRAIN
        (True, True)
    """
    word = name.lower().rstrip("0123456789")
    return next((group for group in (TRAIN, VALIDATION, TEST) if word in group), None)


def choose(names: Iterable[str], group: tuple[str, ...]) -> list[str]:
    """Returns those of `names` that are in the group, whatever their case, in the order of the
    group.
    """
    return sorted(
        (name for name in names if name.lower() in group),
        key=lambda name: (group.index(name.lower()), name),
    )

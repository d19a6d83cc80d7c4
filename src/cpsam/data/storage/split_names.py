"""Knows the names of splits, as timm and the Hugging Face hub use them."""

from collections.abc import Iterable

TRAIN = ("train", "training")
VALIDATION = ("val", "validation", "valid", "dev")
TEST = ("test", "testing", "eval", "evaluation")


def split_kind(name: str) -> tuple[str, ...] | None:
    """Returns the group that a name belongs to, without regard to case and trailing digits.

    Example:
        >>> split_kind("Valid") is VALIDATION, split_kind("train2017") is TRAIN
        (True, True)
    """
    word = name.lower().rstrip("0123456789")
    return next((group for group in (TRAIN, VALIDATION, TEST) if word in group), None)


def choose(names: Iterable[str], group: tuple[str, ...]) -> list[str]:
    """Returns the names that are in the group, in its order, without regard to case."""
    return sorted(
        (name for name in names if name.lower() in group),
        key=lambda name: (group.index(name.lower()), name),
    )

"""Says how pictures of any size become the squares that a network sees, as plain data."""

from dataclasses import dataclass
from typing import Annotated

from cpsam.errors import UserError
from cpsam.typed import Choices, Range, check

Part = Annotated[float, Range(above=0, most=1)]
Portion = Annotated[float, Range(least=0, most=1)]


@dataclass(frozen=True, kw_only=True)
class Transform:
    """How streamed images are augmented in training, and cropped in evaluation.

    Raises:
        UserError: If a value breaks its rule.
    """

    min_crop: Part = 0.08
    """The smallest fraction of a picture that a random resized crop cuts out."""
    color_jitter: Portion = 0.0
    """Change brightness, contrast and saturation by up to this fraction."""
    rand_augment: str = ""
    """RandAugment in timm's words, as in rand-m9-mstd0.5; it takes the place of color_jitter."""
    random_erasing: Portion = 0.0
    """The probability that a rectangle is painted over with the mean colour."""
    test_crop: Part = 0.875
    """In evaluation: the side of the centre crop, as a fraction of the shorter side of the resized
    picture.
    """
    interpolation: Annotated[str, Choices("bilinear", "bicubic", "random")] = "bilinear"
    """Interpolation when resizing: bilinear, bicubic, or random, which draws one of these in
    training and is bilinear in evaluation.
    """

    def __post_init__(self) -> None:
        check(self)
        if self.rand_augment and not self.rand_augment.startswith("rand-"):
            raise UserError(
                "rand_augment must be in timm's words, as in rand-m9-mstd0.5; got"
                f" {self.rand_augment!r}"
            )
        if self.rand_augment and self.color_jitter:
            raise UserError("rand_augment takes the place of color_jitter: give one of them")

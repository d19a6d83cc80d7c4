"""How pictures of any size become the squares that a network sees, as plain data. No torch here:
the command line makes its flags of it.
"""

from dataclasses import dataclass

from cpsam.errors import UserError, unknown

INTERPOLATIONS = ("bilinear", "bicubic", "random")


@dataclass(frozen=True)
class Transform:
    """How streamed images are augmented in training, and cropped in evaluation."""

    min_crop: float = 0.08
    """The smallest share of a picture that a random resized crop cuts out."""
    color_jitter: float = 0.0
    """Change brightness, contrast and saturation by up to this share."""
    rand_augment: str = ""
    """RandAugment in timm's words, as in rand-m9-mstd0.5; it takes the place of color_jitter."""
    random_erasing: float = 0.0
    """The probability that a rectangle is painted over with the mean colour."""
    test_crop: float = 0.875
    """In evaluation: the share that the square cut out of the centre has of the resized picture's
    shorter side.
    """
    interpolation: str = "bilinear"
    """Of resizing: bilinear, bicubic, or random, which is one of these in training and bilinear in
    evaluation.
    """

    def __post_init__(self) -> None:
        for name in ("min_crop", "test_crop", "color_jitter", "random_erasing"):
            value, least = getattr(self, name), "above" if name.endswith("crop") else "at least"
            if isinstance(value, bool) or not 0 <= value <= 1 or (value == 0 and least == "above"):
                raise UserError(f"{name} must be {least} 0 and at most 1; got {value!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", self.interpolation, INTERPOLATIONS)
        if self.rand_augment and not self.rand_augment.startswith("rand-"):
            raise UserError(
                "rand_augment must be in timm's words, as in rand-m9-mstd0.5; got"
                f" {self.rand_augment!r}"
            )
        if self.rand_augment and self.color_jitter:
            raise UserError("rand_augment takes the place of color_jitter: give one of them")

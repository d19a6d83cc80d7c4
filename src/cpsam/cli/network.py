"""The flags that name a network and the size of its images."""

from dataclasses import dataclass
from typing import Annotated

from cpsam.errors import UserError
from cpsam.typed import Range, check

Side = Annotated[int, Range(least=1, most=4096)]


@dataclass(frozen=True)
class NetworkRequest:
    model: str = "resnet20"
    """Network: resnet8, 20, 32, 44, 56, 110, resnet18, 34, 50 (3x3 stem), pointwise8, 16, 32,
    64 (without context), timm/NAME or torchvision/NAME.
    """
    image_size: tuple[Side, ...] = ()
    """Height and width of the images in pixels; one number for a square; 1 to 4,096. Default: 224
    for timm and torchvision; else 32.
    """
    in_channels: Side = 3
    """Channels of the images, from 1 to 4,096."""

    def __post_init__(self) -> None:
        check(self)
        if len(self.image_size) > 2:
            raise UserError(
                f"image_size is one or two numbers of pixels; got {len(self.image_size)}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        sides = self.image_size or (224 if "/" in self.model else 32,)
        return self.in_channels, sides[0], sides[-1]

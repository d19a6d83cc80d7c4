"""Says at which places of a network something remote is left for attention to see."""

from collections.abc import Sequence
from dataclasses import dataclass

NAMED = 4  # places that a sentence names


@dataclass(frozen=True, kw_only=True)
class TheoreticalField:
    """What can change the centre position of one place.

    Attributes:
        at: Path of the module.
        theoretical: Height and width of the receptive field in pixels; None where it is global.
        remote: Whether some position of the image does not see some other one.
    """

    at: str
    theoretical: tuple[int, int] | None
    remote: bool

    @property
    def pixels(self) -> str:
        return "global" if self.theoretical is None else pixels(self.theoretical)


@dataclass(frozen=True, kw_only=True)
class TheoreticalFields:
    """The theoretical receptive fields of places in one network.

    Attributes:
        image_size: Height and width of the images in pixels.
        places: One entry per place, in the order of the model.
        note: Why there is none; "" where there are some.
    """

    image_size: tuple[int, int]
    places: tuple[TheoreticalField, ...] = ()
    note: str = ""

    @property
    def sentences(self) -> list[str]:
        """Says at which places something remote is left."""
        height, width = self.image_size
        image = f"{height}x{width} image"
        remote = [place for place in self.places if place.remote]
        whole = [place for place in self.places if place.theoretical is None]
        covering = [place for place in self.places if place not in (*remote, *whole)]
        said = [self.note] if self.note else []
        if remote:
            # Half the field of a position in one corner must span the image.
            needed = pixels((2 * height - 1, 2 * width - 1))
            said.append(
                f"{subject(remote)} does not reach from corner to corner of the {image}, which"
                f" takes {needed}: some positions are remote there."
            )
        if covering:
            said.append(f"{subject(covering)} covers the {image}: no position is remote there.")
        if whole:
            said.append(f"{subject(whole)} is global: a layer before reads the whole image.")
        return said


def pixels(size: tuple[int, int]) -> str:
    """Returns height and width in pixels; one number for a square."""
    height, width = size
    return f"{height} px" if height == width else f"{height}x{width} px"


def subject(places: Sequence[TheoreticalField]) -> str:
    """Returns the subject of a sentence: where, and the receptive field there."""
    if len(places) == 1:
        size = "" if places[0].theoretical is None else f" ({places[0].pixels})"
        return f"At {places[0].at} the receptive field{size}"
    names = [
        place.at if place.theoretical is None else f"{place.at} ({place.pixels})"
        for place in places
    ]
    if len(places) > NAMED:
        return f"At {len(places)} places from {names[0]} to {names[-1]} the receptive field"
    return f"At {', '.join(names[:-1])} and {names[-1]} the receptive field"

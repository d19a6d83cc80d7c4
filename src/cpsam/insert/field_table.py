"""The receptive fields of the places in a network, as a table, a sentence and plain data."""

from dataclasses import asdict, dataclass
from typing import Any

from cpsam.report.table import Table
from cpsam.report.values import percent

HELD = 0.95


@dataclass(frozen=True)
class PlaceField:
    """What the centre position of one place sees.

    Attributes:
        at: Path of the module.
        stride: Pixels between two positions, to the nearest power of two.
        theoretical: Height and width of the receptive field in pixels; None where it is global.
        theoretical_fraction: The fraction of the image that it covers, from the centre.
        effective: Side in pixels of the square that holds 95 % of the squared input gradient, the
            mean over the images; None if no image has a gradient.
        effective_spread: Its sample standard deviation over the images.
        effective_fraction: The fraction of the image that this square covers.
        remote: Whether a position of the image exists that another position does not see.
    """

    at: str
    stride: int
    theoretical: tuple[int, int] | None
    theoretical_fraction: float
    effective: float | None
    effective_spread: float
    effective_fraction: float | None
    remote: bool


@dataclass(frozen=True)
class ReceptiveFields:
    """The receptive fields of places in one network. It prints, and shows in a notebook.

    Attributes:
        places: One entry per place, in the order of the model.
        image_size: Height and width of the images in pixels.
        image_count: Number of images that the effective fields are means over.
    """

    places: tuple[PlaceField, ...]
    image_size: tuple[int, int]
    image_count: int

    @property
    def sentence(self) -> str:
        """Says at which places something remote is left."""
        image = f"{self.image_size[0]}x{self.image_size[1]} image"
        whole = [place.at for place in self.places if place.theoretical is None]
        local = [place for place in self.places if place.theoretical is not None]
        remote = [f"{place.at} ({pixels(place)})" for place in local if place.remote]
        covering = [place for place in local if not place.remote]
        parts = []
        if remote:
            parts.append(f"in the {image} some positions are remote at {', '.join(remote)}")
        if covering:
            where = ", ".join(place.at for place in covering)
            sizes = ", ".join(map(pixels, covering))
            parts.append(
                f"at {where} the receptive field ({sizes}) covers the {image}: no position is"
                " remote there"
            )
        if whole:
            parts.append(
                f"at {', '.join(whole)} the receptive field is global, because something before"
                " pools the whole image"
            )
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {
            "schema": 1,
            "image_size": list(self.image_size),
            "images": self.image_count,
            "places": [asdict(place) for place in self.places],
            "sentence": self.sentence,
        }

    def table(self) -> Table:
        """Returns the fields as text, one row per place."""
        header = (
            "place", "stride", "receptive field", "% of image", "effective, px", "% of image"
        )  # fmt: skip
        caption = (
            "The receptive field is that of the centre position; statistics of norms are left out."
            f" The effective one is the square that holds {HELD:.0%} of the squared input gradient,"
            f" mean ± standard deviation over {self.image_count} images, with the weights as they"
            " are."
        )
        return Table(header, [cells(place) for place in self.places], caption)

    def __repr__(self) -> str:
        sentence = f"{self.sentence[:1].upper()}{self.sentence[1:]}."
        return f"{self.table()}\n{self.table().caption}\n{sentence}"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def pixels(place: PlaceField) -> str:
    if place.theoretical is None:
        return "global"
    height, width = place.theoretical
    return f"{height} px" if height == width else f"{height}x{width} px"


def cells(place: PlaceField) -> tuple[str, ...]:
    effective = "none"
    if place.effective is not None:
        effective = f"{place.effective:.1f} ± {place.effective_spread:.1f}"
    return (
        place.at,
        str(place.stride),
        pixels(place),
        percent(place.theoretical_fraction),
        effective,
        "" if place.effective_fraction is None else percent(place.effective_fraction),
    )

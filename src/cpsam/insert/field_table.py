"""The receptive fields of the places in a network, as a table and plain data."""

from dataclasses import asdict, dataclass
from typing import Any

from cpsam.report.field import TheoreticalField, TheoreticalFields
from cpsam.report.table import Table
from cpsam.report.values import percent

HELD = 0.95


@dataclass(frozen=True, kw_only=True)
class PlaceField(TheoreticalField):
    """What the centre position of one place sees.

    Attributes:
        stride: Pixels between two positions, to the nearest power of two.
        theoretical_fraction: The fraction of the image that the theoretical field covers.
        effective: Side in pixels of the square that holds 95 % of the squared input gradient, the
            mean over the images; None if no image has a gradient.
        effective_spread: Its sample standard deviation over the images.
        effective_fraction: The fraction of the image that this square covers.
    """

    stride: int
    theoretical_fraction: float
    effective: float | None
    effective_spread: float
    effective_fraction: float | None


@dataclass(frozen=True, kw_only=True)
class ReceptiveFields(TheoreticalFields):
    """The receptive fields of places in one network. It prints, and shows in a notebook.

    Attributes:
        places: One entry per place, in the order of the model.
        image_count: Number of images that the effective fields are means over.
    """

    places: tuple[PlaceField, ...]
    image_count: int

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {
            "schema": 1,
            "image_size": list(self.image_size),
            "images": self.image_count,
            "places": [asdict(place) for place in self.places],
            "sentences": self.sentences,
        }

    def table(self) -> Table:
        """Returns the fields as text, one row per place."""
        header = ("place", "stride", "receptive field", "% of image")
        header += ("effective field", "% of image")
        return Table(header, [cells(place) for place in self.places], " ".join(self.explanation))

    @property
    def explanation(self) -> list[str]:
        """Says what the columns mean."""
        return [
            "The receptive field is what can change the centre position; statistics that norms take"
            " over the image are left out.",
            f"The effective field is the square that holds {100 * HELD:.0f} % of the squared input"
            f" gradient, mean ± standard deviation over {self.image_count} images; it depends on"
            " the weights.",
            "A position is remote if it lies outside the receptive field of another position.",
        ]

    def __repr__(self) -> str:
        return "\n".join([str(self.table()), *self.sentences, *self.explanation])

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def cells(place: PlaceField) -> tuple[str, ...]:
    effective = "none"
    if place.effective is not None:
        effective = f"{place.effective:.1f} ± {place.effective_spread:.1f} px"
    return (
        place.at,
        str(place.stride),
        place.pixels,
        percent(place.theoretical_fraction),
        effective,
        "" if place.effective_fraction is None else percent(place.effective_fraction),
    )

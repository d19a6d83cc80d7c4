"""Writes the tables that say what each block can see, from the results of the probes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpsam.attention import ATTENTION
from cpsam.report.records import ArmResult
from cpsam.report.results import read_results
from cpsam.report.table import Table

FOLDER = Path(__file__).parent / "results" / "probes"
SOLVED = 0.9  # top-1 of a run


@dataclass(frozen=True)
class Probe:
    """A data set whose label needs context.

    Attributes:
        name: Of the data set, and of the folder of its results.
        needs: What the label needs.
        ceiling: Top-1 of a reader that sees one part alone, in percent.
    """

    name: str
    needs: str
    ceiling: int


PROBES = (
    Probe("cued-digits", "one cue at the other end of the image", 50),
    Probe("majority-cue", "the mean of many cues", 50),
    Probe("recall", "one answer to each of three queries", 25),
)


@dataclass(frozen=True)
class Column:
    """One setting of a probe: the network, and the arms in it."""

    probe: Probe
    model: str
    arms: dict[str, ArmResult]

    @property
    def title(self) -> str:
        return f"{self.probe.name}, `{self.model}`"


def columns() -> Iterator[Column]:
    """Yields the settings of all probes, in their order."""
    for probe in PROBES:
        results = read_results(FOLDER / probe.name)
        for setting in results.settings:
            arms = {arm.arm: arm for arm in results.arms_in(setting.name)}
            yield Column(probe, setting.model, arms)


def solved_table() -> Table:
    """Returns a row per probe: which blocks solve it in every run, in some, in none.

    Of a probe with several networks it takes the first.
    """
    header = ["probe", "its label needs", "without context, %", "≥ 90 % in every run"]
    header += ["in some runs", "in no run"]
    rows: dict[str, list[str]] = {}
    for column in columns():
        groups: dict[str, list[str]] = {"every": [], "some": [], "no": []}
        for name, arm in column.arms.items():
            solved = [top1 >= SOLVED for top1 in arm.top1_by_seed.values()]
            kind = "every" if all(solved) else "some" if any(solved) else "no"
            groups[kind].append(f"`{name}`")
        probe = column.probe
        shown = [", ".join(names) or "-" for names in groups.values()]
        rows.setdefault(probe.name, [column.title, probe.needs, str(probe.ceiling), *shown])
    return Table(header, list(rows.values()))


def seen_table(names: tuple[str, ...] = ("none", *ATTENTION)) -> Table:
    """Returns a row per block: the mean of its runs on each probe, with the lowest and highest."""
    found = list(columns())
    rows = [[f"`{name}`", *(spread(column.arms.get(name)) for column in found)] for name in names]
    return Table(["block", *(column.title for column in found)], rows)


def spread(arm: ArmResult | None) -> str:
    """Returns mean, lowest and highest top-1 in percent; a dash where a block took no part."""
    values = [100 * top1 for top1 in arm.top1_by_seed.values()] if arm else []
    if not values:
        return "-"
    return f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f})"

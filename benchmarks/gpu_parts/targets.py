"""What the measured numbers should be, and which of them are."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gpu_parts.block_times import BARE, MODES

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Target:
    """Limits one figure of every part whose name fits.

    Attributes:
        part: A pattern of names of parts.
        figure: The keys that lead to the figure in what the part measured. The last one may be a
            pattern, which means the best figure that fits.
        at_least: The lowest good value, or None.
        at_most: The highest good value, or None.
        data: The only data set on which the limit means something, or "".
    """

    part: str
    figure: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    data: str = ""

    @property
    def words(self) -> str:
        limit = f">= {self.at_least:,g}" if self.at_most is None else f"<= {self.at_most:,g}"
        return f"{', '.join(self.figure)} {limit}"

    def value(self, measured: Mapping[str, Any]) -> float | None:
        """Returns the figure, which is a number or has a median; None if it was not measured."""
        *path, last = self.figure
        found: Any = measured
        for key in path:
            found = found.get(key, {})
        fits = [each for key, each in found.items() if fnmatchcase(key, last)]
        values = [each["median"] if isinstance(each, dict) else each for each in fits]
        best = min if self.at_least is None else max
        return best(values, default=None)

    def is_met(self, value: float) -> bool:
        return value <= self.at_most if self.at_least is None else value >= self.at_least


TARGETS = (
    Target("pytest -m cuda", ("failures",), at_most=0),
    Target("pytest -m cuda", ("seconds",), at_most=180),
    *(
        Target(f"blocks {how} *", ("ratios", mode, f"{block} / {bare}"), at_most=most)
        for how, most in (("eager", 2.0), ("compiled", 1.3))
        for block, bare in BARE.items()
        for mode in MODES
    ),
    *(
        Target("blocks eager *x56x56 *", ("ratios", mode, f"non_local / {block}"), at_least=3)
        for block in ("cpsam:depthwise", "cpsam:grouped")
        for mode in MODES
    ),
    Target("training none 128", ("ratios", "graph / eager"), at_least=3),
    Target("training none 128", ("fastest", "one network"), at_least=150_000, data="cifar100"),
    Target("training none 128", ("fastest", "several at once"), at_least=400_000, data="cifar100"),
    Target("training none 128 timm", ("ratios", "* / timm_script"), at_least=10),
)


def judge(results: Results, data: str) -> list[dict[str, Any]]:
    """Returns each target with what was measured, by the name of the part.

    `met` is None where nothing was measured.

    Args:
        results: Name of a part -> what it measured.
        data: The name of the data set.
    """
    judged: list[dict[str, Any]] = []
    for target in TARGETS:
        fits = target.data in ("", data)
        found = {
            name: target.value(measured)
            for name, measured in results.items()
            if fits and fnmatchcase(name, target.part)
        }
        values = {name: value for name, value in found.items() if value is not None}
        worst_first = sorted(values, key=lambda name: values[name], reverse=target.at_least is None)
        missed = [name for name in worst_first if not target.is_met(values[name])]
        judged.append(
            {
                "target": target.words,
                "part": target.part,
                "values": values,
                "missed": missed,
                "met": not missed if values else None,
                "why": "" if values else "not measured" if fits else f"means nothing on {data}",
            }
        )
    return judged


def lines(judged: list[dict[str, Any]]) -> list[str]:
    """Returns one line per target that was missed or not measured, then how many were met.

    A missed one has the number of the part that misses it most.
    """
    shown = []
    for each in judged:
        if each["met"] is None:
            shown.append(f"{each['why']}: {each['target']} in {each['part']}")
        elif each["missed"]:
            name, of = each["missed"][0], f"{len(each['missed'])} of {len(each['values'])} parts"
            shown.append(f"missed: {each['target']}: {each['values'][name]:.6g} in {name} ({of})")
    met = sum(each["met"] is True for each in judged)
    return [*shown, f"{met} of {len(judged)} targets were met"]

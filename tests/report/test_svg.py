"""What pictures are drawn with: escaped elements, axes, and labels that do not cover each other."""

import re
from itertools import combinations, pairwise

import pytest
from markupsafe import Markup

from cpsam.report.svg import (
    LEFT,
    RIGHT,
    cost_axis,
    element,
    identity_of,
    linear_ticks,
    place_label,
    spread,
    tick_words,
)


def test_markup_escapes_text_and_attributes_once():
    assert (
        element("g", "a<b", Markup("<i>"), 1, None, "&", title='"x"', id=None)
        == '<g title="&#34;x&#34;">a&lt;b<i>1&amp;</g>'
    )
    assert element("text", x=1.0, text_anchor="end") == '<text x="1" text-anchor="end"></text>'
    assert element("text", "{x}\x1b", class_="{y}") == '<text class="{y}">{x}\\x1b</text>'


@pytest.mark.parametrize(
    "low, high", [(0, 1), (0.4, 93.2), (91.03, 91.34), (-3.3, 7.7), (5, 5), (0, 83_648)]
)
def test_ticks_cover_the_range_evenly(low, high):
    ticks = linear_ticks(low, high)
    steps = [after - before for before, after in pairwise(ticks)]
    assert ticks[0] <= low + 1e-6 and ticks[-1] >= high - 1e-6 and len(ticks) <= 9
    assert steps == pytest.approx([steps[0]] * len(steps))


@pytest.mark.parametrize("step", [2.0, 0.5, 0.1, 0.05, 0.001, 2e-5])
# far from zero, ticks are apart by a little more or less than a step
@pytest.mark.parametrize("first", [7, *range(540, 560)])
def test_the_numbers_of_an_axis_differ_as_its_ticks_do(step: float, first: int) -> None:
    ticks = [step * index for index in range(first, first + 6)]
    texts = tick_words(ticks)
    assert [float(text) for text in texts] == pytest.approx(ticks, rel=1e-9)
    assert step >= 1 or any(not text.endswith("0") for text in texts), "no digit more than that"


@pytest.mark.parametrize(
    "costs, logarithmic",
    [([0, 10, 150], False), ([0, 10, 1000], True), ([0], False), ([7, 7], False), ([3, 5e6], True)],
)
def test_a_cost_axis_keeps_order_and_frame(costs, logarithmic):
    place, ticks, chosen = cost_axis(costs)
    assert chosen == logarithmic and ticks
    assert [place(cost) for cost in costs] == sorted(place(cost) for cost in costs)
    assert all(44 <= place(value) <= 410 for value in [*costs, *ticks])


def test_spread_moves_only_neighbours_that_touch():
    assert spread([100, 300, 200], 30) == [100, 300, 200]
    assert spread([201, 200, 300], 30) == [215.5, 185.5, 300]


@pytest.mark.parametrize(
    "positions",
    [[50] * 3, [409, 408, 400], [100, 101, 102, 140, 150, 300], [60, 90, 91, 92, 93], [200] * 25],
)
def test_spread_keeps_order_distance_and_frame(positions):
    moved = spread(positions, 30)
    order = sorted(range(len(positions)), key=positions.__getitem__)
    gaps = [moved[after] - moved[before] for before, after in pairwise(order)]
    assert min(gaps) >= min(30, (410 - 44 - 16) / (len(positions) - 1)) - 1e-9
    assert min(moved) >= 44 and max(moved) <= 410


def test_labels_of_one_place_do_not_cover_each_other():
    taken = []
    for name in ("none", "conv_control", "non_local", "cpsam"):
        place_label(name, 200.0, 140.0, taken)
    assert len(taken) == 4
    for one, other in combinations(taken, 2):
        beside = one[2] <= other[0] or other[2] <= one[0]
        assert beside or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("x", [LEFT + 2.0, (LEFT + RIGHT) / 2, RIGHT - 2.0])
@pytest.mark.parametrize("crowded", [False, True])
def test_a_label_stays_in_the_picture(x, crowded):
    """Even where nothing is free: it then covers something rather than running out at the side."""
    taken = [(0.0, 0.0, 1000.0, 1000.0)] if crowded else []
    label = place_label("conv_control", x, 100.0, taken)
    at, anchor = (
        float(re.search(r' x="([^"]+)"', label)[1]),
        re.search(r'text-anchor="(\w+)"', label)[1],
    )
    width = 7.8 * len("conv_control")
    left = {"start": at, "middle": at - width / 2, "end": at - width}[anchor]
    assert left >= LEFT - 1
    assert left + width <= RIGHT + 7


def test_pictures_of_settings_with_names_alike_have_names_of_their_own() -> None:
    names = ("a.b", "a-b", "a_b", "A-B")
    assert len({identity_of("MACs added", name) for name in names}) == len(names)
    assert all(" " not in identity_of("MACs added", name) for name in names)

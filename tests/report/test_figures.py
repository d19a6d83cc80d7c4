"""The pictures of a report show each run once, on axes that mean what they say."""

import re
from itertools import pairwise

import numpy as np
import pytest
from support.comparisons import COSTS, TOP1, VARIANTS, comparison
from support.html_page import Page
from support.whole_study import changed, whole_content, whole_study

from cpsam.report.page import render_page
from cpsam.report.plots import LOSS_CURVE, TOP1_CURVE, curve_plot, front
from cpsam.report.row_plots import contrast_plot, seed_plot


@pytest.mark.parametrize("results", VARIANTS.values(), ids=VARIANTS)
def test_a_dot_is_a_finished_run_and_higher_is_better(results):
    page = Page(render_page(results))
    tops = [run.top1 for arm in results.arms for run in arm.runs if run.status == "done"]
    dots = [float(attributes["cy"]) for attributes, _ in page.find("circle", class_="run")]
    others = [page.find("svg", id=name) for name in ("plot-difference", "plot-seeds")]
    plots = len(page.find("svg", role="img")) - sum(map(len, others))
    assert len(dots) == plots * len(tops)
    assert plots == (0 if not tops else 3 if results.timing.arms else 2)
    for start in range(0, len(dots), len(tops) or 1):
        pairs = sorted(zip(tops, dots[start : start + len(tops)], strict=True))
        for (low, below), (high, above) in pairwise(pairs):
            assert (above < below) == (high > low) and (above == below) == (high == low)
    for tag in ("circle", "text", "line"):
        for attributes, _ in page.find(tag):
            numbers = {
                key: float(value)
                for key, value in attributes.items()
                if key in ("cx", "cy", "x", "y", "x1", "x2", "y1", "y2")
            }
            assert all(0 <= value <= (300 if "y" in key else 420) for key, value in numbers.items())


def test_cost_orders_the_arms_from_left_to_right():
    svg = re.search(
        r'<svg[^>]*id="plot-parameters-added".*?</svg>', render_page(comparison()), re.S
    )[0]
    left = [
        float(re.search(r'x1="([\d.]+)"[^>]*class="mean"', group)[1])
        for group in re.findall(r"<g .*?</g>", svg)
        if "mean" in group
    ]
    by_cost = sorted(zip([COSTS[name] for name in TOP1], left, strict=True))
    assert [x for _, x in by_cost] == sorted(left) and len(set(left)) == 4


@pytest.mark.parametrize("results", VARIANTS.values(), ids=VARIANTS)
def test_axes_show_zero_difference_and_stop_at_100_percent(results):
    text = render_page(results)
    for svg in re.findall(r'<svg[^>]*id="plot-difference".*?</svg>', text, re.S):
        assert len(re.findall(r'class="zero"', svg)) == 1
    for svg in re.findall(r'<svg[^>]*id="plot-parameters-added".*?</svg>', text, re.S):
        assert max(map(float, re.findall(r'text-anchor="end" class="tick">([\d.]+)<', svg))) <= 100


def test_a_picture_has_a_name_and_a_description_in_words():
    page = Page(render_page(comparison()))
    texts = {
        attributes["id"]: text
        for tag in ("title", "desc")
        for attributes, text in page.find(tag)
        if "id" in attributes
    }
    assert len(page.find("svg", role="img")) == 5
    for attributes, _ in page.find("svg"):
        title, description = (texts[identity] for identity in attributes["aria-labelledby"].split())
        assert title and "cpsam" in description
    assert (
        "cpsam: +1.00 points, n = 3, 95 % interval +0.75 to +1.25" in texts["plot-difference-desc"]
    )


def test_one_arm_with_runs_among_others_is_no_picture():
    assert "<svg" in render_page(comparison())
    top1 = {name: dict.fromkeys((0, 1, 2), None) for name in TOP1} | {
        "none": {0: 0.9, 1: 0.91, 2: 0.9}
    }
    page = render_page(comparison(top1))
    assert "<svg" not in page and "Accuracy and cost" not in page


def test_a_dot_a_run_and_a_thread_a_seed() -> None:
    picture = seed_plot(whole_study(), "late")
    assert picture is not None
    assert picture.count('class="seed"') == 5 * 7 - 1
    assert picture.count('class="thread"') == 7


def test_curves_have_bands_and_what_broke_off_is_dashed() -> None:
    for kind in (TOP1_CURVE, LOSS_CURVE):
        picture = curve_plot(whole_study(), "late", kind)
        assert picture is not None
        assert picture.count('class="band"') == 5
        assert picture.count('class="curve broken"') == 1
        assert picture.count('class="curve leading"') == 2
    arms = whole_content()["arms"]
    without = [{**arm, "runs": [{**run, "curve": {}} for run in arm["runs"]]} for arm in arms]
    assert curve_plot(changed(arms=without), "late") is None


def test_a_dashed_curve_is_explained_where_there_is_one() -> None:
    late, every_branch = render_page(whole_study()).split('id="plot-curves.every-branch"')
    assert (
        "A dashed line is a run that broke off" in late
        and "A dashed line is a run that broke off" not in every_branch
    )
    # of a run that broke off before its first epoch was over
    empty = {"top1": [], "train_loss": []}
    arms = [
        {**a, "runs": [r if r["status"] == "done" else {**r, "curve": empty} for r in a["runs"]]}
        for a in whole_content()["arms"]
    ]
    assert "A dashed line is a run" not in render_page(changed(arms=arms))


def test_a_picture_of_questions_names_both_sides_unless_one_is_the_same_in_all() -> None:
    alike = contrast_plot(whole_study())
    assert (
        alike is not None
        and "Top-1 of cpsam minus that of others" in alike
        and "cpsam \N{MINUS SIGN}" not in alike
    )
    first, second, *others = whole_content()["contrasts"]
    second = second | {"arm": "none @ late", "reference": "eca @ every-branch"}
    mixed = contrast_plot(changed(contrasts=[first, second, *others]))
    assert mixed is not None and "cpsam minus" not in mixed
    assert "cpsam \N{MINUS SIGN} non_local (late)" in mixed and "none \N{MINUS SIGN} eca" in mixed


def test_the_front_is_what_nothing_as_cheap_beats() -> None:
    points = [
        (float(cost), float(value))
        for cost, value in np.random.default_rng(3).integers(0, 9, (40, 2))
    ]
    chosen = {points[index] for index in front(points)}
    beaten = {
        (c, v)
        for c, v in points
        if any(oc <= c and ov >= v and (oc, ov) != (c, v) for oc, ov in points)
    }
    assert chosen == set(points) - beaten
    assert len(re.findall('class="front"', render_page(whole_study()))) == 2 * 4


def test_the_axis_of_a_curve_fits_the_second_half_of_the_epochs() -> None:
    """The first epochs, at 22 % here, would press the end into a line."""
    picture = curve_plot(whole_study(), "late")
    ticks = re.findall(r'text-anchor="end" class="tick">([\d.]+)<', str(picture))
    assert min(map(float, ticks)) > 30

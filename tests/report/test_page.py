import re
from base64 import b64encode
from dataclasses import asdict
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from zipfile import ZipFile

import pytest
from markupsafe import Markup

from cpsam.errors import DataError
from cpsam.report.answer import answer
from cpsam.report.facts import made_by
from cpsam.report.page import render_page
from cpsam.report.results import Results
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
from cpsam.report.table import arms_table, failures_table
from cpsam.report.values import count, place_words, points
from cpsam.statistics import paired_difference, summarize

TOP1 = {
    "none": [0.901, 0.905, 0.903],
    "conv_control": [0.911, 0.913, 0.909],
    "non_local": [0.905, 0.912, 0.908],
    "cpsam": [0.915, 0.921, 0.919],
}
COSTS = {
    "none": (0, 0),
    "conv_control": (2340, 580_000),
    "non_local": (83_648, 5_300_000),
    "cpsam": (2362, 210_000),
}


def arm(name: str, top1: dict[int, float | None]) -> dict:
    runs = [
        {
            "seed": seed,
            "status": "diverged" if value is None else "done",
            "top1": value,
            "top5": None,
            "loss": None,
            "folder": f"runs/{name}-{seed}",
            "error": "the loss is nan at step 31" if value is None else None,
        }
        for seed, value in top1.items()
    ]
    parameters, macs = COSTS.get(name, (10, 10))
    return {
        "name": name,
        "attention": name,
        "arguments": {"reduction": 16},
        "places": [] if name == "none" else ["layer3.1"],
        "parameters": 272_474 + parameters,
        "parameters_added": parameters,
        "macs": 40_810_000 + macs,
        "macs_added": macs,
        "runs": runs,
    }


def study(top1: dict[str, dict[int, float | None]] | None = None, **changes: object) -> Results:
    """Returns the results of a comparison with these changes of its JSON."""
    return Results.from_json(content_of(top1) | changes)


def content_of(top1: dict[str, dict[int, float | None]] | None = None) -> dict:
    """Returns results as an early version wrote them; `top1` is arm -> seed -> value, None for a
    run that diverged.
    """
    top1 = top1 or {name: dict(enumerate(values)) for name, values in TOP1.items()}
    done = {
        name: {seed: value for seed, value in by_seed.items() if value is not None}
        for name, by_seed in top1.items()
    }
    arms = []
    for name in top1:
        record = arm(name, top1[name]) | {
            "top1": asdict(summarize(done[name].values())),
            "difference": {},
        }
        for reference in ("none", "non_local"):
            paired = name != reference and done[name].keys() & done.get(reference, {}).keys()
            record["difference"][reference] = (
                asdict(paired_difference(done[name], done[reference])) if paired else None
            )
        arms.append(record)
    return {
        "schema": 1,
        "command": "cpsam compare --data digits --seeds 0 1 2",
        "data": {
            "name": "digits",
            "note": "Easy, near its ceiling.",
            "train_images": 1437,
            "test_images": 360,
            "classes": 10,
            "fingerprint": "4be1",
        },
        "model": "resnet20",
        "at": ["before-last"],
        "recipe": {"epochs": 12, "channels_last": True},
        "seeds": sorted({seed for by_seed in top1.values() for seed in by_seed}),
        "primary": ["cpsam", "non_local"],
        "arms": arms,
        "environment": {
            "versions": {"torch": "2.14.1"},
            "device": "cpu",
            "threads": 2,
            "commit": "a1b2c3d",
        },
        "notes": ["conv_control has 2,340 parameters, cpsam has 2,362."],
        "timing": {
            "arms": {
                name: {
                    "latency_ms": {"median": 12.34, "q1": 12.0, "q3": 13.0, "n": 20},
                    "train_seconds": [9.0],
                }
                for name in top1
            },
            "batch_size": 64,
            "total_seconds": 141.2,
        },
    }


class Page(HTMLParser):
    """Checks nesting and unique ids while reading, and keeps every element with its attributes and
    text.
    """

    def __init__(self, text: str):
        super().__init__()
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open
        ids = [attributes["id"] for _, attributes, _ in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in ("meta", "br"):
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data):
        for index in self.open:
            self.elements[index][2].append(data)

    def find(self, tag: str, **wanted: str) -> list[tuple[dict[str, str | None], str]]:
        found = [
            (attributes, "".join(text)) for name, attributes, text in self.elements if name == tag
        ]
        return [
            (attributes, text)
            for attributes, text in found
            if all(attributes.get(k.rstrip("_")) == v for k, v in wanted.items())
        ]


def plain(text: str) -> str:
    """With a hyphen for minus and dash, so that a test can be typed."""
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")


def plain_rows(results: Results) -> list[list[str]]:
    return [[plain(cell) for cell in row] for row in arms_table(results).rows]


VARIANTS = {
    "three seeds": study(),
    "one seed": study({name: {0: values[0]} for name, values in TOP1.items()}),
    "a run diverged": study(
        {
            name: {0: values[0], 1: None if name == "cpsam" else values[1], 2: values[2]}
            for name, values in TOP1.items()
        }
    ),
    "an arm all diverged": study(
        {"none": {0: 0.9, 1: 0.91}, "non_local": {0: 0.9, 1: 0.9}, "cpsam": {0: None, 1: None}}
    ),
    "nothing finished": study({name: {0: None} for name in TOP1}),
    "without non_local": study({name: dict(enumerate(TOP1[name])) for name in ("none", "cpsam")}),
    "one arm": study({"cpsam": dict(enumerate(TOP1["cpsam"]))}),
    "one arm, not finished": study({"none": {0: None}}, primary=["none", "(no other arm)"]),
    "all the same": study({name: {0: 1.0, 1: 1.0} for name in TOP1}),
    "many seeds": study(
        {
            name: {seed: values[seed % 3] + seed / 10_000 for seed in range(12)}
            for name, values in TOP1.items()
        }
    ),
    "without timing and notes": study(timing={}, notes=[]),
}


@pytest.mark.parametrize("results", VARIANTS.values(), ids=VARIANTS)
def test_every_page_is_well_formed_and_says_what_the_table_says(results):
    page = Page(render_page(results))
    header, rows = arms_table(results).header, arms_table(results).rows
    assert all(len(row) == len(header) for row in rows)
    assert [text for _, text in page.find("th", role="columnheader")] == header
    names = [text for _, text in page.find("th", role="rowheader")]
    cells = [(attributes["data-label"], text) for attributes, text in page.find("td", role="cell")]
    assert names == [row[0] for row in rows] == [arm.name for arm in results.arms]
    assert cells == [pair for row in rows for pair in zip(header[1:], row[1:], strict=True)]
    said = [
        text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NON-BREAKING HYPHEN}", "-")
        for _, text in page.find("h1")
    ]
    assert said == [answer(results)]
    assert all(attributes["scope"] in ("row", "col") for attributes, _ in page.find("th"))
    assert len(page.find("caption")) == len(page.find("table"))
    assert (results.command, results.data.note) == (
        page.find("code")[0][1],
        page.find("p", class_="callout")[0][1],
    )


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
    svg = re.search(r'<svg[^>]*id="plot-parameters-added".*?</svg>', render_page(study()), re.S)[0]
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
    page = Page(render_page(study()))
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


def test_nothing_from_outside_becomes_markup():
    hostile = """<script>alert("1")</script>&'<img src=x onerror=alert(1)>\udcff"""
    top1 = {"none": {0: 0.9}, hostile: {0: None}, "non_local": {0: 0.9}, hostile + "2": {0: 0.95}}
    results = content_of(top1) | {
        "command": hostile,
        "model": hostile,
        "at": [hostile],
        "notes": [hostile],
        "primary": [hostile + "2", "non_local"],
    }
    results["data"] |= {"name": hostile, "note": hostile, "fingerprint": hostile}
    results["recipe"] = {hostile: hostile}
    results["environment"] = {"device": hostile, "versions": {hostile: hostile}}
    for arm in results["arms"]:
        arm["arguments"], arm["places"] = {hostile: hostile}, [hostile]
        for run in arm["runs"]:
            run |= {"error": hostile, "folder": hostile}
    text = render_page(Results.from_json(results))
    page = Page(text)
    assert {tag for tag, _, _ in page.elements}.isdisjoint(
        {"script", "img", "a", "link", "iframe", "object", "form"}
    )
    assert not any(
        key.startswith("on") or key in ("src", "href", "style")
        for _, attributes, _ in page.elements
        for key in attributes
    )
    assert page.find("code")[0][1] == hostile.replace("\udcff", "\\udcff")
    text.encode("utf-8")


def test_the_page_loads_nothing():
    text = render_page(study())
    assert not re.search(
        r"https?:|//|@import|url\(", re.sub(r"<!doctype html>|/\*.*?\*/|sha256-[^']*", "", text)
    )
    policy = Page(text).find("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]["content"]
    style = re.search("<style>(.*?)</style>", text, re.S)[1]
    assert policy.startswith("default-src 'none'; ")
    assert f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" in policy


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_every_colour_that_writes_is_readable_on_every_ground(mode):
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    style = files("cpsam.report").joinpath("report.css").read_text(encoding="utf-8")
    colours = dict(
        re.findall(r"--([\w-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", style, re.S)[mode])
    )
    for name, colour in colours.items():
        if name in ("ink", "soft", "warn") or name.startswith("arm"):
            for ground in ("paper", "card"):
                low, high = sorted((luminance(colour), luminance(colours[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


@pytest.mark.parametrize(
    "cpsam, non_local, sentence",
    [
        (
            {0: 0.92, 1: 0.93, 2: 0.925},
            {0: 0.91, 1: 0.921, 2: 0.914},
            "cpsam is 1.00 points of top-1 ahead of non_local (95 % interval",
        ),
        (
            {0: 0.91, 1: 0.921, 2: 0.914},
            {0: 0.92, 1: 0.93, 2: 0.925},
            "cpsam is 1.00 points of top-1 behind non_local (95 % interval -1.25 to",
        ),
        (
            {0: 0.92, 1: 0.90},
            {0: 0.91, 1: 0.905},
            (
                "cpsam and non_local are not told apart: top-1 of cpsam minus non_local is +0.25"
                " points"
            ),
        ),
        (
            {0: 0.5, 1: 0.6},
            {0: 0.5, 1: 0.6},
            (
                "Top-1 of cpsam minus non_local is +0.00 points on every seed, which gives no"
                " interval (n = 2 paired seeds"
            ),
        ),
        (
            {0: 0.9},
            {0: 0.95},
            (
                "One seed makes no claim: top-1 of cpsam minus non_local is -5.00 points (n = 1, so"
                " there is no interval)."
            ),
        ),
        (
            {0: 0.9},
            {1: 0.95},
            "cpsam against non_local is not answered: no seed finished with both.",
        ),
    ],
)
def test_the_answer_claims_what_the_interval_allows(cpsam, non_local, sentence):
    words = plain(answer(study({"cpsam": cpsam, "non_local": non_local})))
    assert sentence in words and words.endswith(".")
    claims = "ahead of" in words or "behind" in words
    assert claims == all(
        no not in words for no in ("are not told apart", "no claim", "not answered", "no interval")
    )
    assert len(cpsam) == 1 or f"n = {len(cpsam)} paired seeds" in words


def test_the_answer_names_an_arm_that_did_not_take_part():
    assert (
        answer(VARIANTS["without non_local"])
        == "cpsam against non_local is not answered: non_local did not take part."
    )
    assert answer(study({"none": {0: 0.9}})).endswith("cpsam and non_local did not take part.")


def test_a_row_in_words():
    header = [
        "arm",
        "parameters added",
        "MACs",
        "ms per batch of 64",
        "top-1, %",
        "n",
        "vs non_local, points",
        "vs none, points",
    ]
    assert arms_table(study()).header == header
    rows = plain_rows(study())
    assert rows[0] == [
        "none",
        "0",
        "40.81 M",
        "12.3 (12.0-13.0)",
        "90.30 ± 0.20",
        "3",
        "-0.53 [-0.91, -0.15]",
        "-",
    ]
    assert rows[2][1:3] == ["83,648", "46.11 M"] and rows[2][6] == "-"
    assert plain_rows(VARIANTS["one seed"])[3][4:] == [
        "91.50",
        "1",
        "+1.00 (one seed)",
        "+1.40 (one seed)",
    ]
    assert arms_table(VARIANTS["without non_local"]).header[6:] == ["vs none, points"]
    assert plain_rows(VARIANTS["a run diverged"])[3][5] == "2"
    assert plain_rows(VARIANTS["an arm all diverged"])[2][4:] == ["-", "0", "-", "-"]


def test_the_same_difference_on_every_seed_is_no_proof():
    alike = study(
        {"none": {0: 0.9, 1: 0.8}, "non_local": {0: 0.9, 1: 0.8}, "cpsam": {0: 0.91, 1: 0.81}}
    )
    assert (
        answer(alike)
        == "Top-1 of cpsam minus non_local is +1.00 points on every seed, which gives no interval"
        " (n = 2 paired seeds, too few for a test)."
    )
    assert plain_rows(alike)[2][6] == "+1.00 (each seed the same)"
    assert "ahead" not in render_page(alike)


def test_n_stands_beside_a_difference_that_has_fewer_pairs_than_its_row_has_runs():
    top1 = {name: dict(enumerate(values)) for name, values in TOP1.items()}
    top1["none"][1] = None
    assert arms_table(study(top1)).rows[3][7].endswith("] (n = 2)")


def test_failed_runs_are_listed_with_their_error():
    assert "did not finish" not in render_page(study())
    page = Page(render_page(VARIANTS["a run diverged"]))
    cells = [text for _, text in page.find("td")]
    start = cells.index("diverged")
    assert cells[start - 2 : start + 2] == ["cpsam", "1", "diverged", "the loss is nan at step 31"]


def test_runs_of_an_arm_that_ended_alike_stand_in_one_row():
    top1 = {name: dict(enumerate(values)) for name, values in TOP1.items()}
    top1["cpsam"] = dict.fromkeys((0, 1, 2), None)
    results = content_of(top1)
    results["arms"][3]["runs"][1]["error"] = "the loss is inf at step 7"
    assert failures_table(Results.from_json(results)).rows == [
        ("cpsam", "0, 2", "diverged", "the loss is nan at step 31"),
        ("cpsam", "1", "diverged", "the loss is inf at step 7"),
    ]


def test_runs_say_where_they_were_made_though_the_page_was_made_elsewhere():
    where = {
        "processor": "Chip A",
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "commit": "0123456789ab",
        "versions": {"torch": "2.14"},
    }
    made = [
        {"runs": 11, "resumed": 2, **where},
        {"runs": 1, "resumed": 0, **where, "processor": "Chip B"},
    ]
    lines = made_by(study(made_by=made))
    assert lines == [
        (
            "11 runs (2 of them resumed elsewhere): Chip A, cpu, float32, 1 thread, torch 2.14,"
            " commit 0123456789"
        ),
        "1 run: Chip B, cpu, float32, 1 thread, torch 2.14, commit 0123456789",
    ]
    assert all(line in render_page(study(made_by=made)) for line in lines)
    assert made_by(study()) == []


def test_many_places_are_counted_and_few_are_named():
    assert place_words(["a", "b.c"]) == "a, b.c"
    assert place_words(["a", "b", "c", "d", "e"]) == "5 places, a to e"


def test_one_arm_with_runs_among_others_is_no_picture():
    assert "<svg" in render_page(study())
    top1 = {name: dict.fromkeys((0, 1, 2), None) for name in TOP1} | {
        "none": {0: 0.9, 1: 0.91, 2: 0.9}
    }
    page = render_page(study(top1))
    assert "<svg" not in page and "Accuracy and cost" not in page


def test_another_schema_is_refused():
    with pytest.raises(DataError, match=r"results.json: schema must be 1; got 2"):
        study(schema=2)


def test_markup_escapes_text_and_attributes_once():
    assert (
        element("g", "a<b", Markup("<i>"), 1, None, "&", title='"x"', id=None)
        == '<g title="&#34;x&#34;">a&lt;b<i>1&amp;</g>'
    )
    assert element("text", x=1.0, text_anchor="end") == '<text x="1" text-anchor="end"></text>'
    assert element("text", "{x}\x1b", class_="{y}") == '<text class="{y}">{x}\\x1b</text>'


def test_counts_and_points():
    assert [count(number) for number in (0, 999, 1000, 12_345, 4_089_184_256, None)] == [
        "0",
        "999",
        "1.000 k",
        "12.35 k",
        "4.089 G",
        "\N{EN DASH}",
    ]
    assert [points(value) for value in (0.00521, -0.0123, 0.0)] == [
        "+0.52",
        "\N{MINUS SIGN}1.23",
        "+0.00",
    ]


@pytest.mark.parametrize(
    "low, high", [(0, 1), (0.4, 93.2), (91.03, 91.34), (-3.3, 7.7), (5, 5), (0, 83_648)]
)
def test_ticks_cover_the_range_evenly(low, high):
    ticks = linear_ticks(low, high)
    steps = [after - before for before, after in pairwise(ticks)]
    assert ticks[0] <= low + 1e-6 and ticks[-1] >= high - 1e-6 and len(ticks) <= 9
    assert steps == pytest.approx([steps[0]] * len(steps))


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


@pytest.mark.parametrize("step", [2.0, 0.5, 0.1, 0.05, 0.001, 2e-5])
# far from zero, ticks are apart by a little more or less than a step
@pytest.mark.parametrize("first", [7, *range(540, 560)])
def test_the_numbers_of_an_axis_differ_as_its_ticks_do(step: float, first: int) -> None:
    ticks = [step * index for index in range(first, first + 6)]
    texts = tick_words(ticks)
    assert [float(text) for text in texts] == pytest.approx(ticks, rel=1e-9)
    assert step >= 1 or any(not text.endswith("0") for text in texts), "no digit more than that"


def test_pictures_of_settings_with_names_alike_have_names_of_their_own() -> None:
    names = ("a.b", "a-b", "a_b", "A-B")
    assert len({identity_of("MACs added", name) for name in names}) == len(names)
    assert all(" " not in identity_of("MACs added", name) for name in names)


def test_an_arm_alone_is_compared_with_nothing():
    alone, begun = VARIANTS["one arm"], VARIANTS["one arm, not finished"]
    assert (
        answer(alone)
        == "cpsam is the only arm, so there is nothing to compare it with; its top-1 is 91.83 ±"
        " 0.31 %."
    )
    assert (
        answer(begun)
        == "none is the only arm, so there is nothing to compare it with; no run of it has"
        " finished."
    )
    for results, name in ((alone, "cpsam"), (begun, "none")):
        assert Page(render_page(results)).find("title")[0][1] == f"{name} on digits"
        assert f"cpsam compare: {name} on digits" in render_page(results)


def test_the_wheel_carries_what_a_page_is_made_of(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).parents[2]
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    parts = {path.name for path in (root / "src/cpsam/report").iterdir() if path.is_file()}
    assert parts >= {"page.html.j2", "table.html.j2", "report.css"}
    assert {f"cpsam/report/{name}" for name in parts} <= set(ZipFile(wheel).namelist())

"""The answer claims what the interval allows, and names its best control."""

from pathlib import Path

import pytest
from support.comparisons import VARIANTS, comparison
from support.html_page import Page
from support.whole_study import changed, whole_content, whole_study

from cpsam.cli.table import print_results
from cpsam.report.answer import answer, control_words, evidence
from cpsam.report.formats import render_markdown
from cpsam.report.page import render_page
from cpsam.report.results import Results
from cpsam.report.values import unbroken


def plain(text: str) -> str:
    """With a hyphen for minus and dash, so that a test can be typed."""
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")


AHEAD = {0: 0.92, 1: 0.93, 2: 0.925}
BEHIND = {0: 0.91, 1: 0.921, 2: 0.914}


@pytest.mark.parametrize(
    "cpsam, non_local, sentence",
    [
        (AHEAD, BEHIND, "cpsam is 1.00 points of top-1 ahead of non_local (95 % interval"),
        (BEHIND, AHEAD, "cpsam is 1.00 points of top-1 behind non_local (95 % interval -1.25 to"),
        (
            {0: 0.92, 1: 0.90},
            {0: 0.91, 1: 0.905},
            "not told apart: top-1 of cpsam minus non_local is +0.25 points, 95 % interval",
        ),
        (
            {0: 0.5, 1: 0.6},
            {0: 0.5, 1: 0.6},
            "Top-1 of cpsam minus non_local is +0.00 points on every seed, which gives no interval"
            " (n = 2 paired seeds",
        ),
        (
            {0: 0.9},
            {0: 0.95},
            "One seed makes no claim: top-1 of cpsam minus non_local is -5.00 points (n = 1, so"
            " there is no interval).",
        ),
        (
            {0: 0.9},
            {1: 0.95},
            "cpsam against non_local is not answered: no seed finished with both.",
        ),
    ],
)
def test_the_answer_claims_what_the_interval_allows(cpsam, non_local, sentence):
    words = plain(answer(comparison({"cpsam": cpsam, "non_local": non_local})))
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
    assert answer(comparison({"none": {0: 0.9}})).endswith("cpsam and non_local did not take part.")


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


def test_the_answer_is_of_the_setting_of_the_question() -> None:
    assert answer(whole_study()).startswith("At late: cpsam is ")
    assert " ahead of non_local (95 % interval +" in answer(whole_study())


def compared(**numbers: object) -> Results:
    """Returns a study whose best control differs by these numbers."""
    control = {"arm": "conv_control @ late", "of": 2, "fewer": [], "n": 7, "mean": 0.006}
    return changed(control=control | numbers)


@pytest.mark.parametrize(
    ("low", "mean", "high", "words"),
    [
        (0.004, 0.006, 0.008, "is ahead of {}: by 0.60 points, 95 % interval +0.40 to +0.80 ({})."),
        (
            -0.008,
            -0.006,
            -0.004,
            "is behind {}: by 0.60 points, 95 % interval -0.80 to -0.40 ({}).",
        ),
        (
            -0.01,
            0.006,
            0.022,
            "is not told apart from {}: +0.60 points, 95 % interval -1.00 to +2.20 ({}).",
        ),
        (None, 0.006, None, "minus {}, is +0.60 points ({})."),
    ],
)
@pytest.mark.parametrize(
    ("n", "pairs"),
    [
        (7, "n = 7 paired seeds"),
        (2, "n = 2 paired seeds, too few for a test"),
        (1, "n = 1 paired seed, too few for a test"),
    ],
)
def test_the_best_control_is_compared_as_its_interval_allows(
    low: float | None, mean: float, high: float | None, words: str, n: int, pairs: str
) -> None:
    for of, kind in (
        (2, "the best of 2 controls without attention"),
        (1, "the control without attention"),
    ):
        (said,) = control_words(compared(low=low, mean=mean, high=high, n=n, of=of))
        assert plain(said) == f"cpsam {words.format(f'conv_control, {kind}', pairs)}"


def test_the_best_control_stands_beside_the_answer_in_every_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = compared(low=0.004, high=0.008)
    (said,) = control_words(results)
    print_results(results, Path("out"))
    shown = capsys.readouterr().out
    assert shown.index(answer(results)) < shown.index(said)
    assert said in render_markdown(results) and unbroken(said) in render_page(results)
    (fewer,) = control_words(compared(low=0.004, high=0.008, fewer=["norm_only @ every-branch"]))
    assert fewer == f"{said} Controls with fewer seeds are left out: norm_only."
    assert control_words(whole_study()) == []


def test_the_evidence_repeats_nothing_and_claims_nothing_impossible() -> None:
    first, *others = whole_content()["contrasts"]
    none = dict.fromkeys(("mean", "sd", "low", "high", "p", "p_sign_flip", "detectable"))
    unanswered = first | none | {"n": 0, "note": "no seed finished with both"}
    results = changed(contrasts=[unanswered, *others])
    assert answer(results).endswith("no seed finished with both.") and evidence(results) == []
    assert "four times in five" in " ".join(evidence(whole_study()))
    wide = changed(contrasts=[first | {"detectable": 1.2}, *others])
    assert "four times in five" not in " ".join(evidence(wide)), "there is no such difference"

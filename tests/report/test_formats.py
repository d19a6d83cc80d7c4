"""A report of a whole study, with several settings, contrasts, curves and a run that broke off, in
all its forms.
"""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.whole_study import ARMS, BROKEN, changed, whole_content, whole_study

from cpsam.cli.table import print_results
from cpsam.report.answer import answer, control_words
from cpsam.report.facts import count_words
from cpsam.report.formats import markdown_table, render_markdown, written_forms
from cpsam.report.page import render_page
from cpsam.report.plots import curve_plot, front
from cpsam.report.remarks import remarks
from cpsam.report.row_plots import contrast_plot, seed_plot
from cpsam.report.table import Table, arms_table, contrasts_table
from cpsam.report.values import unbroken


def test_the_answer_is_of_the_setting_of_the_question() -> None:
    assert answer(whole_study()).startswith("At late: cpsam is ")
    assert " ahead of non_local (95 % interval +" in answer(whole_study())


def test_each_setting_has_its_table_with_its_own_references() -> None:
    table = arms_table(whole_study(), "every-branch")
    assert table.header[6:] == ["vs none, points"]
    assert [row[0] for row in table.rows] == list(ARMS["every-branch"])
    late, everything = arms_table(whole_study(), "late"), arms_table(whole_study())
    assert late.header[6:] == ["vs non_local, points", "vs none, points"]
    assert everything.header == late.header
    assert [row[0] for row in everything.rows] == [
        f"{name} @ {setting}" for setting in ARMS for name in ARMS[setting]
    ]


def test_the_questions_are_shown_with_the_p_that_counts() -> None:
    table, contrasts = contrasts_table(whole_study()), whole_content()["contrasts"]
    header, rows = table.header, table.rows
    assert header[0].startswith("cpsam ")
    assert rows[0][0] == "non_local, late"
    assert rows[0][3] != "\N{EN DASH}" and rows[0][4] == "\N{EN DASH}", (
        "the primary p is not adjusted"
    )
    assert all(row[3] == "\N{EN DASH}" for row in rows[1:]), (
        "of the others only the adjusted p is shown"
    )
    assert [row[4] for row in rows[1:]] == [
        "< 0.001" if c["p_holm"] < 0.001 else f"{c['p_holm']:.3f}" for c in contrasts[1:]
    ]


def test_columns_of_tests_stand_only_where_a_test_was_made() -> None:
    none = dict.fromkeys(("p", "p_holm", "p_sign_flip"))
    few = changed(contrasts=[each | none for each in whole_content()["contrasts"]])
    table = contrasts_table(few)
    assert table.header[1:] == ["difference, points", "n", "detectable, points"]
    assert {len(row) for row in table.rows} == {4}
    assert "Holm" in render_page(whole_study()) and "Holm" not in render_page(few)


@pytest.mark.parametrize(
    ("low", "mean", "high", "words"),
    [
        (
            0.004,
            0.006,
            0.008,
            (
                "cpsam is ahead of conv_control, {}: by 0.60 points, 95 % interval +0.40 to +0.80"
                " ({})."
            ),
        ),
        (
            -0.008,
            -0.006,
            -0.004,
            (
                "cpsam is behind conv_control, {}: by 0.60 points, 95 % interval \N{MINUS SIGN}0.80"
                " to \N{MINUS SIGN}0.40 ({})."
            ),
        ),
        (
            -0.01,
            0.006,
            0.022,
            (
                "cpsam is not told apart from conv_control, {}: +0.60 points, 95 % interval"
                " \N{MINUS SIGN}1.00 to +2.20 ({})."
            ),
        ),
        (None, 0.006, None, "cpsam minus conv_control, {}, is +0.60 points ({})."),
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
def test_the_best_control_stands_beside_the_answer_in_every_form(
    low: float | None,
    mean: float,
    high: float | None,
    words: str,
    n: int,
    pairs: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    control = {
        "arm": "conv_control @ late",
        "of": 2,
        "fewer": [],
        "n": n,
        "mean": mean,
        "low": low,
        "high": high,
    }
    results = changed(control=control)
    (said,) = control_words(results)
    assert said == words.format("the best of 2 controls without attention", pairs)
    print_results(results, Path("out"))
    shown = capsys.readouterr().out
    page, markdown = render_page(results), render_markdown(results)
    assert (
        shown.index(answer(results)) < shown.index(said)
        and said in markdown
        and unbroken(said) in page
    )
    (one,) = control_words(changed(control=control | {"of": 1}))
    assert one == words.format("the control without attention", pairs)
    (fewer,) = control_words(changed(control=control | {"fewer": ["norm_only @ every-branch"]}))
    assert fewer == f"{said} Controls with fewer seeds are left out: norm_only."
    assert control_words(whole_study()) == []


def test_every_run_is_counted_however_it_ended() -> None:
    assert count_words(whole_study()) == "70 runs: 69 done, 1 diverged"


def test_all_forms_say_the_same() -> None:
    results = whole_study()
    forms = written_forms(results)
    assert set(forms) == {"report.html", "report.md", "arms.csv", "contrasts.csv", "runs.csv"}
    assert forms["report.md"].startswith(f"# {answer(results)}\n")
    for setting in ARMS:
        for row in arms_table(results, setting).rows:
            assert f"| {' | '.join(row)} |" in forms["report.md"]
    runs = list(csv.DictReader(io.StringIO(forms["runs.csv"])))
    assert len(runs) == 70
    lost = [
        (run["setting"], run["arm"], int(run["seed"]), run["status"], run["top1"])
        for run in runs
        if run["status"] != "done"
    ]
    assert lost == [(*BROKEN, "diverged", "")]
    arms = {
        (arm["setting"], arm["arm"]): arm for arm in csv.DictReader(io.StringIO(forms["arms.csv"]))
    }
    for arm in results.arms:
        assert float(arms[arm.setting, arm.arm]["top1_mean"]) == arm.top1.mean
    contrasts = list(csv.DictReader(io.StringIO(forms["contrasts.csv"])))
    assert [float(each["p"]) for each in contrasts] == [each.p for each in results.contrasts]
    for words in (
        "the loss is nan",
        "differs from the others",
        "cpsam study plan.toml",
        "4 more seeds (0, 2, 9, 11)",
    ):
        assert words in forms["report.md"] and words in forms["report.html"]
    assert "blocks" in forms["report.html"]


def test_every_form_says_what_an_arm_is_and_what_was_equal() -> None:
    first, *others = whole_content()["arms"]
    wide = {
        **first,
        "name": "wide @ late",
        "arm": "wide",
        "attention": "cpsam",
        "arguments": {"reduction": 4},
        "recipe": {"lr": 0.5},
    }
    forms = written_forms(changed(arms=[wide, *others], budget="time"))
    for form in ("report.html", "report.md"):
        assert "cpsam, reduction 4, at layer3.1, recipe of its own: lr 0.5" in forms[form]
        assert (
            "equal time" in forms[form]
            and "after the last epoch, on the validation split" in forms[form]
        )
    row = next(csv.DictReader(io.StringIO(forms["arms.csv"])))
    assert (row["attention"], json.loads(row["arguments"]), json.loads(row["recipe"])) == (
        "cpsam",
        {"reduction": 4},
        {"lr": 0.5},
    )


@pytest.mark.parametrize("width", [50, 80, 100])
def test_on_a_narrow_terminal_no_word_is_broken(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(width))
    results = whole_study()
    print_results(results, Path("out"))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    table = shown[: shown.index(answer(results)[:20])]
    assert all(len(line) <= width for line in table.splitlines())
    for setting in ARMS:
        for row in arms_table(results, setting).rows:
            assert all(re.search(rf"(?<!\S){re.escape(cell)}(?!\S)", table) for cell in row), row


def test_the_terminal_shows_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    results = changed(unlike={"4": ["processor"]})
    print_results(results, Path("out"))
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert answer(results) in lines and "Report: out/report.html" in lines
    assert [
        line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")
    ] == remarks(results)
    assert len(remarks(results)) == 3
    for setting in ARMS:
        assert setting in lines and all(
            cell in shown for row in arms_table(results, setting).rows for cell in row
        )
    assert f"{count_words(results)}; those that did not finish are in no mean" in lines


def test_images_that_were_held_out_are_not_called_test_images() -> None:
    content = whole_content()
    assert "45 images to train on, 5 of the validation split to measure on" in render_page(
        whole_study()
    )
    data = content["data"] | {"measured_on": "test split"}
    on_test = changed(settings=[setting | {"data": data} for setting in content["settings"]])
    assert "45 images to train on, 5 of the test split to measure on" in render_page(on_test)


def test_every_dataset_of_a_study_is_named_once_in_every_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = whole_content()["data"] | {
        "name": "digits",
        "note": "Another note.",
        "train_images": 1437,
        "fingerprint": "77aa",
    }
    late, every_branch = whole_content()["settings"]
    results = changed(settings=[late, every_branch | {"data": other}])
    print_results(results, Path("runs"))
    page, shown = render_page(results), capsys.readouterr().out
    for text in (page, render_markdown(results)):
        assert text.count("cifar100: 45 images") == text.count("digits: 1,437 images") == 1
        assert text.count("A note.") == text.count("Another note.") == 1
    assert shown.count("A note.") == shown.count("Another note.") == 1
    assert "4be1, 77aa" in page


def test_a_plan_that_grew_says_so() -> None:
    assert (
        "The plan was changed after 2 of its 2 runs had ended: 4 more seeds (0, 2, 9, 11) and 1"
        " more run." in render_page(whole_study())
    )
    first = whole_content()["plans"][0]
    assert "The plan was changed" not in render_page(changed(plans=[first]))
    turned = {**first, "seeds": first["seeds"][::-1], "ended_before": 1}
    assert "The plan was changed" not in render_page(changed(plans=[first, turned])), (
        "another order is no other plan"
    )


def test_a_dot_a_run_and_a_thread_a_seed() -> None:
    picture = seed_plot(whole_study(), "late")
    assert picture is not None
    assert picture.count('class="seed"') == 5 * 7 - 1
    assert picture.count('class="thread"') == 7


def test_curves_have_bands_and_what_broke_off_is_dashed() -> None:
    for key in ("top1", "train_loss"):
        picture = curve_plot(whole_study(), "late", key)
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


@pytest.mark.parametrize("cell", ["a|b", "two\nlines"])
def test_a_cell_of_markdown_stays_one_cell(cell: str) -> None:
    line = markdown_table(Table(["x", "y"], [[cell, "3"]])).splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", line)) == 3

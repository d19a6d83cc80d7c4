"""All forms of a report say the same."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.whole_study import ARMS, BROKEN, changed, whole_content, whole_study

from cpsam.cli.table import print_results
from cpsam.report.answer import answer
from cpsam.report.formats import markdown_table, render_markdown, written_forms
from cpsam.report.page import render_page
from cpsam.report.table import Table, arms_table


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
        assert "cpsam, defaults" not in forms[form], "an arm that is named after its block"
    row = next(csv.DictReader(io.StringIO(forms["arms.csv"])))
    assert (row["attention"], json.loads(row["arguments"]), json.loads(row["recipe"])) == (
        "cpsam",
        {"reduction": 4},
        {"lr": 0.5},
    )


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


@pytest.mark.parametrize("cell", ["a|b", "two\nlines"])
def test_a_cell_of_markdown_stays_one_cell(cell: str) -> None:
    line = markdown_table(Table(["x", "y"], [[cell, "3"]])).splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", line)) == 3


def test_the_only_question_has_no_table_of_its_own() -> None:
    only = changed(contrasts=whole_content()["contrasts"][:1])
    for render in (render_page, render_markdown):
        assert "The questions of the plan" in render(whole_study())
        assert "The questions of the plan" not in render(only)
        unplanned = replace(whole_study(), name="")
        assert "The questions" in render(unplanned)
        assert "of the plan" not in render(unplanned)

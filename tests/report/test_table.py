"""The tables of a report: arms, questions, runs that did not finish."""

from support.comparisons import TOP1, VARIANTS, comparison, content_of
from support.html_page import Page
from support.whole_study import ARMS, changed, whole_content, whole_study

from cpsam.report.answer import answer
from cpsam.report.facts import count_words, made_by
from cpsam.report.page import render_page
from cpsam.report.results import Results
from cpsam.report.table import arms_table, contrasts_table, failures_table
from cpsam.report.values import count, place_words, points


def plain(text: str) -> str:
    """With a hyphen for minus and dash, so that a test can be typed."""
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")


def plain_rows(results: Results) -> list[list[str]]:
    return [[plain(cell) for cell in row] for row in arms_table(results).rows]


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
    assert arms_table(comparison()).header == header
    rows = plain_rows(comparison())
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
    alike = comparison(
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
    assert arms_table(comparison(top1)).rows[3][7].endswith("] (n = 2)")


def test_each_setting_has_its_table_with_its_own_references() -> None:
    table = arms_table(whole_study(), "every-branch")
    assert table.header[6:] == ["vs none, points"]
    assert [row[0] for row in table.rows] == list(ARMS["every-branch"])
    late, everything = arms_table(whole_study(), "late"), arms_table(whole_study())
    assert late.header[6:] == ["vs non_local, points", "vs none, points"]
    assert everything.header == late.header
    other = arms_table(changed(primary=["cpsam @ late", "none @ late"]), "late")
    assert other.header[6:] == ["vs none, points", "vs non_local, points"]
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


def test_failed_runs_are_listed_with_their_error():
    assert "did not finish" not in render_page(comparison())
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
    lines = made_by(comparison(made_by=made))
    assert lines == [
        (
            "11 runs (2 of them resumed elsewhere): Chip A, cpu, float32, 1 thread, torch 2.14,"
            " commit 0123456789"
        ),
        "1 run: Chip B, cpu, float32, 1 thread, torch 2.14, commit 0123456789",
    ]
    assert all(line in render_page(comparison(made_by=made)) for line in lines)
    assert made_by(comparison()) == []


def test_every_run_is_counted_however_it_ended() -> None:
    assert count_words(whole_study()) == "70 runs: 69 done, 1 diverged"


def test_many_places_are_counted_and_few_are_named():
    assert place_words(["a", "b.c"]) == "a, b.c"
    assert place_words(["a", "b", "c", "d", "e"]) == "5 places, a to e"


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

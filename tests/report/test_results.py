"""Results as typed records: what a file says is kept, and what is damaged is named."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.whole_study import ARMS, changed, whole_content, whole_study

import cpsam
from cpsam.errors import DataError, UserError
from cpsam.report.answer import control_words
from cpsam.report.formats import written_forms
from cpsam.report.remarks import remarks
from cpsam.report.results import Results, read_results

KEPT = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/results.json"))


def lost(before: Any, after: Any, where: str = "") -> list[str]:
    """The keys and values of the one that the other lacks."""
    if isinstance(before, dict):
        missing = [f"{where}/{key}" for key in before if key not in after]
        both = [key for key in before if key in after]
        return missing + [
            each for key in both for each in lost(before[key], after[key], f"{where}/{key}")
        ]
    if isinstance(before, list) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return [
            each for index, pair in enumerate(pairs) for each in lost(*pair, f"{where}/{index}")
        ]
    return [] if before == after and type(before) is type(after) else [where]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.parent.name)
def test_committed_results_come_back_as_they_are(path: Path) -> None:
    content = json.loads(path.read_text())
    results = read_results(path.parent)
    written = json.loads(json.dumps(results.to_json()))
    assert lost(content, written) == []
    assert Results.from_json(written) == results == cpsam.read_results(str(path))
    if "settings" in content:
        assert list(content) == [key for key in written if key in content], "the order of the keys"


def test_the_results_of_a_study_come_back_as_they_are() -> None:
    written = json.loads(json.dumps(whole_study().to_json()))
    assert lost(whole_content(), written) == []
    assert Results.from_json(written) == whole_study()


def test_older_results_get_what_they_lack() -> None:
    results = read_results(next(path for path in KEPT if path.parent.name == "cifar100-2-epochs"))
    assert [(setting.name, setting.model) for setting in results.settings] == [("", "resnet20")]
    assert [arm.arm for arm in results.arms] == [arm.name for arm in results.arms]
    (contrast,) = results.contrasts
    assert (contrast.arm, contrast.reference, contrast.primary) == ("cpsam", "non_local", True)
    difference = results.by_name["cpsam"].difference["non_local"]
    assert difference is not None
    assert (contrast.n, contrast.mean, contrast.low) == (2, difference.mean, difference.low)
    assert results.arms[0].runs[0].curve.top1 == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(schema=2), "schema must be 1; got 2"),
        (lambda content: content.pop("seeds"), "seeds is missing"),
        (lambda content: content.update(seeds="0"), "seeds must be a list; got '0'"),
        (
            lambda content: content["arms"][0]["runs"][0].update(top1="high"),
            "arms.runs.top1 must be a finite number; got 'high'",
        ),
        (
            lambda content: content["timing"]["arms"].update(x=3),
            "timing.arms.x must be an object; got 3",
        ),
    ],
)
def test_a_damaged_field_is_named(change: Any, words: str, tmp_path: Path) -> None:
    content = json.loads(json.dumps(whole_content()))
    change(content)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        read_results(tmp_path)
    assert str(error.value) == f"{path}: {words}"


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/results.json: there are no results"):
        read_results(tmp_path)


def test_results_show_the_answer_its_control_and_the_tables() -> None:
    control = {"arm": "conv_control @ late", "of": 1, "n": 7, "mean": 0.01, "low": None}
    results = changed(control=control)
    said = [results.answer, *control_words(results), *remarks(results)]
    text, html = repr(results), results._repr_html_()
    assert text == str(results) and text.splitlines()[: len(said)] == said and len(said) == 4
    for words in (*said, *ARMS):
        assert words in text and words in html
    for setting in ARMS:
        table = results.table(setting)
        assert repr(table) in text
        assert len({len(line) for line in repr(table).splitlines()}) == 1, "the columns are aligned"
        for row in table.rows:
            assert all(f"<td>{cell}</td>" in html for cell in row)
    assert "src=" not in html and "href=" not in html and html.count("<table>") == len(ARMS)
    assert [row[0] for row in results.table().rows] == [arm.name for arm in results.arms]
    with pytest.raises(UserError, match="unknown setting 'lat': did you mean 'late'"):
        results.table("lat")


def test_a_name_is_text_in_a_notebook_and_a_terminal() -> None:
    first, *others = whole_content()["arms"]
    results = changed(arms=[first | {"arm": "<b>\x1b[31m"}, *others], warnings=["<i>\x1b]0;x"])
    html, text = results._repr_html_(), repr(results)
    assert "&lt;b&gt;\\x1b[31m" in html and "<b>" not in html and "<i>" not in html
    assert "<b>\\x1b[31m" in text and "\x1b" not in text + html


@pytest.mark.parametrize("rows", ["runs", "arms", "contrasts"])
def test_results_are_saved_in_the_form_of_the_suffix(rows: str, tmp_path: Path) -> None:
    results, forms = whole_study(), written_forms(whole_study())
    for name, known in (
        ("a.html", forms["report.html"]),
        ("a.md", forms["report.md"]),
        ("a.csv", forms[f"{rows}.csv"]),
    ):
        results.save(tmp_path / name, rows=rows)
        assert (tmp_path / name).read_text() == known
    results.save(str(tmp_path / "a.json"))
    assert read_results(tmp_path / "a.json") == results


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown suffix '\.htm': did you mean '\.html'"):
        whole_study().save(tmp_path / "report.htm")
    with pytest.raises(UserError, match="unknown kind of rows 'run': did you mean 'runs'"):
        whole_study().save(tmp_path / "report.csv", rows="run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        whole_study().save(tmp_path / "file" / "report.md")


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    whole_study().save(tmp_path / "new" / "folder" / "report.md")
    assert (tmp_path / "new" / "folder" / "report.md").is_file()


def test_a_data_frame_has_one_row_per_run_and_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="to_dataframe needs pandas: pip install pandas"):
        whole_study().to_dataframe()
    frame = SimpleNamespace(DataFrame=lambda records, columns: (records, columns))
    monkeypatch.setitem(sys.modules, "pandas", frame)
    records, columns = whole_study().to_dataframe()
    assert columns[:5] == ["setting", "arm", "seed", "status", "top1"]
    runs = [(arm, run) for arm in whole_study().arms for run in arm.runs]
    assert [record[:5] for record in records] == [
        [arm.setting, arm.arm, run.seed, run.status, run.top1] for arm, run in runs
    ]
    assert len(whole_study().to_dataframe("arms")[0]) == len(whole_study().arms)

"""Results as typed records: what a file says is kept, and what is damaged is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.whole_study import whole_content, whole_study

import cpsam
from cpsam.errors import DataError
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
        (lambda content: content.update(seeds="0"), "seeds: must be a list; got '0'"),
        (
            lambda content: content["arms"][0]["runs"][0].update(top1="high"),
            "arms: runs: top1: must be a finite number; got 'high'",
        ),
        (
            lambda content: content["timing"]["arms"].update(x=3),
            "timing: arms: 'x': must be an object; got 3",
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

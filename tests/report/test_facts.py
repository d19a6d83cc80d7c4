"""What the report says of a study beside its numbers."""

from support.whole_study import FIELD, changed, whole_content

from cpsam.report.facts import notes
from cpsam.report.formats import written_forms


def test_settings_with_the_same_receptive_fields_share_a_line() -> None:
    late, branch = whole_content()["settings"]
    seen = {"image_size": [32, 24], "places": [{**FIELD, "at": "layer1.0", "remote": True}]}
    said = "At layer3.2 the receptive field (81 px) covers the 32x32 image: no position is remote"
    results = changed()
    assert notes(results) == [f"late, every-branch: {said} there.", *results.notes]
    results = changed(settings=[late, branch | {"receptive_fields": seen}])
    assert [note.partition(":")[0] for note in notes(results)[:2]] == ["late", "every-branch"]
    for name in ("report.html", "report.md"):
        assert "corner of the 32x24 image" in written_forms(results)[name]


def test_older_results_say_nothing_of_receptive_fields() -> None:
    settings = [
        {key: each[key] for key in ("name", "data", "model", "at")}
        for each in whole_content()["settings"]
    ]
    results = changed(settings=settings)
    assert notes(results) == list(results.notes)


def test_many_places_are_counted() -> None:
    places = [{**FIELD, "at": f"layer{index}", "theoretical": [index, 9]} for index in range(1, 6)]
    (late, _) = whole_content()["settings"]
    results = changed(
        settings=[late | {"receptive_fields": {"image_size": [9, 9], "places": places}}]
    )
    assert notes(results)[0].startswith(
        "At 5 places from layer1 (1x9 px) to layer5 (5x9 px) the receptive field covers"
    )

"""``cpsam study`` and ``compare`` as a person gives them: what they would do, refuse, and try
again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpsam.cli import main
from cpsam.measure import Latency
from cpsam.study import budget

PLAN = """
name = "s"
seeds = [0]
budget = "time"
control = false
[recipe]
epochs = 20
batch_size = 16
[[setting]]
name = "last"
at = ["before-last"]
arms = ["none", "eca"]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def test_a_dry_run_names_the_runs_that_the_study_has(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {"bare": 1.0, "arm none": 1.0, "arm eca": 2.0}

    def timed(steps: dict[str, Callable[[], object]], **_: Any) -> dict[str, Latency]:
        return {name: Latency(seconds[name], seconds[name], seconds[name], 10) for name in steps}

    monkeypatch.setattr(budget, "measure_latency", timed)
    words = ["study", str(plan), "--out", str(tmp_path / "out")]
    main([*words, "--dry-run"])
    before = capsys.readouterr().out
    assert "is measured when the study begins" in before and not (tmp_path / "out").exists()
    folder = tmp_path / "out" / "s"
    folder.mkdir(parents=True)
    main([*words, "--report"])
    planned = json.loads((folder / "plan.json").read_text())["runs"]
    assert sorted(run["recipe"]["epochs"] for run in planned.values()) == [10, 20]
    seconds["arm eca"] = 4.0  # the machine is busy now, and the study has its epochs
    capsys.readouterr()
    main([*words, "--dry-run"])
    after = capsys.readouterr().out
    assert all(str(folder / name) in after for name in planned) and "measured when" not in after


def test_a_report_that_is_to_retry_is_refused_and_forgets_no_failure(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "out" / "s" / "run" / "failed.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"error": "no memory"}')
    with pytest.raises(SystemExit) as left:
        main(["study", str(plan), "--out", str(tmp_path / "out"), "--report", "--retry-failed"])
    assert left.value.code == 2
    assert "--report trains nothing, and --retry-failed trains" in capsys.readouterr().err
    assert record.exists()


def test_a_comparison_tries_a_failed_run_again_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "compare",
        "--data",
        "digits",
        "--attention",
        "none",
        "--seeds",
        "0",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--out",
        str(tmp_path),
        "--json",
    ]
    main(words)
    (summary,) = tmp_path.glob("*/none-*/summary.json")
    summary.with_name("failed.json").write_text('{"error": "no memory"}')
    summary.unlink()
    found = []
    for more in ([], ["--retry-failed"]):
        capsys.readouterr()
        main([*words, *more])
        found.append(json.loads(capsys.readouterr().out)["arms"][0]["runs"][0]["status"])
    assert found == ["failed", "done"] and summary.exists()


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert isinstance(left.value.code, int)
    return left.value.code, capsys.readouterr().err


def test_a_folder_that_is_a_file_is_named_and_kept(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for verb in (["study", str(plan)], ["compare", "--attention", "none", "--epochs", "1"]):
        code, error = said([*verb, "--out", str(file)], capsys)
        assert code == 2 and str(file) in error and error.count("\n") == 1
    assert file.read_text() == "mine"


def test_a_run_folder_that_is_a_file_is_named(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan.write_text(PLAN.replace('budget = "time"', "").replace("epochs = 20", "epochs = 1"))
    words = ["study", str(plan), "--out", str(tmp_path / "out"), "--runs-at-once", "1"]
    main([*words, "--dry-run", "--json"])
    run = tmp_path / "out" / "s" / sorted(json.loads(capsys.readouterr().out)["runs"])[0]
    run.parent.mkdir(parents=True)
    run.write_text("mine")
    code, error = said(words, capsys)
    last = error.splitlines()[-1]
    assert (
        code == 2 and last.startswith("cpsam: ") and str(run) in last and run.read_text() == "mine"
    )


def test_a_dry_run_sees_that_another_question_was_asked_before(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PLAN.replace('budget = "time"', '[primary]\narm = "eca"\nreference = "none"').replace(
        "control = false\n", ""
    )
    text = "control = false\n" + text
    plan.write_text(text)
    (tmp_path / "out" / "s").mkdir(parents=True)
    words = ["study", str(plan), "--out", str(tmp_path / "out")]
    main([*words, "--report"])
    plan.write_text(
        text.replace('arm = "eca"\nreference = "none"', 'arm = "none"\nreference = "eca"')
    )
    for more in ("--dry-run", "--report"):
        code, error = said([*words, more], capsys)
        assert (
            code == 2
            and "eca against none in last" in error
            and "another question needs another name" in error
        )


def test_a_name_of_many_letters_is_a_folder_of_few(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a" * 300
    plan.write_text(
        PLAN.replace('budget = "time"', "").replace('"eca"', f'"{name}"')
        + f'[arm.{name}]\nattention = "eca"\n'
    )
    main(["study", str(plan), "--out", str(tmp_path / "out"), "--dry-run", "--json"])
    assert all(len(run) <= 255 for run in json.loads(capsys.readouterr().out)["runs"])


def test_a_dry_run_of_a_comparison_tells_the_time_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "compare",
        "--data",
        "digits",
        "--attention",
        "none",
        "eca",
        "--seeds",
        "0",
        "4",
        "--epochs",
        "3",
        "--batch-size",
        "32",
        "--runs-at-once",
        "3",
    ]
    words += ["--out", str(tmp_path / "out"), "--validation", "0.2", "--dry-run"]
    main(words)
    said = capsys.readouterr().out
    for part in (
        (
            "resnet20 at before-last; digits: 1,150 images to train on, 288 of the validation split"
            " to measure on, 10 classes"
        ),
        "1 thread",
        "4 runs, 3 at once, 0 already finished; seeds 0 4",
        "eca: 2 runs of about ",
        (
            "for 4 runs, 3 at once: an estimate for this machine from 2 timed steps per"
            " arm, without the time to load images"
        ),
    ):
        assert part in said, said
    assert said.count("to do ") == 4 and not (tmp_path / "out").exists()
    main([*words, "--json"])
    time = json.loads(capsys.readouterr().out)["estimate"]
    none, eca = (arm["run_seconds"] for arm in time["arms"].values())
    # The fourth run begins where the first of three has ended, and they begin with none, eca, none.
    assert time["seconds"] == pytest.approx(max(min(none, eca) + eca, none))
    assert time["seconds"] > 0 and (time["runs"], time["threads"], set(time["arms"])) == (
        4,
        1,
        {"none", "eca"},
    )

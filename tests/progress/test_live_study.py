"""What a person sees of a study while it runs."""

import io

import pytest

from cpsam.progress import LiveStudy
from cpsam.progress.study_progress import StudyProgress
from cpsam.progress.terminal import Terminal


def header(index: int, arm: str, seed: int) -> dict:
    return {"run": f"{arm}-{seed}", "index": index, "runs": 5, "arm": arm, "seed": seed}


def step(index: int, arm: str, seed: int, done: int) -> dict:
    where = {
        "epoch": 1,
        "epochs": 2,
        "step": done,
        "steps": 8,
        "loss": 0.5,
        "lr": 0.1,
        "images_per_s": 900.0,
        "seconds_left": 3.0,
    }
    return {**header(index, arm, seed), "event": "step", **where}


EVENTS = [
    (0, {"event": "plan", "runs": 5, "ended": 1, "seeds": [3, 4], "folder": "runs/x"}),
    (1, {**header(0, "none", 3), "event": "run"}),
    (1, {**header(0, "none", 3), "event": "finished", "top1": 0.5, "read": True, "seconds": 9.0}),
    (1, {**header(1, "cpsam", 3), "event": "run"}),
    (2, {**header(2, "eca", 3), "event": "run"}),
    (5, step(2, "eca", 3, 4)),
    (7, {**header(2, "eca", 3), "event": "diverged", "error": "the loss is nan"}),
    (
        9,
        {**header(1, "cpsam", 3), "event": "finished", "top1": 0.25, "read": False, "seconds": 8.0},
    ),
    (9, {**header(3, "none", 4), "event": "run"}),
    (11, step(3, "none", 4, 4)),
]


def test_runs_done_running_and_failed_and_the_time_left() -> None:
    study, lines = StudyProgress(), []
    for now, event in EVENTS:
        study.take(event, float(now))
        lines.append(study.line(float(now)))
    assert lines[0] == "0 of 5 runs done, 0 running"
    assert lines[2] == "1 of 5 runs done, 0 running"
    # After 4 s half a run of four: 28 s for the other three and a half.
    assert lines[5] == "1 of 5 runs done, 2 running, about 28 s left"
    # After 10 s two and a half runs of four: 6 s for the rest.
    assert lines[-1] == "2 of 5 runs done, 1 running, 1 failed, about 6 s left"
    assert study.rows() == [
        ("none", "1", "0", "50.00"),
        ("cpsam", "1", "0", "25.00"),
        ("eca", "0", "1", ""),
    ]


def test_a_run_whose_worker_died_is_not_running_and_not_failed() -> None:
    study = StudyProgress()
    for now, event in EVENTS[:5]:
        study.take(event, float(now))
    study.take({**header(2, "eca", 3), "event": "died", "error": "killed", "deaths": 1}, 6.0)
    assert study.line(6.0) == "1 of 5 runs done, 1 running"


def test_while_a_report_is_measured_nothing_is_said_of_runs_that_it_did_not_see() -> None:
    out = io.StringIO()
    with LiveStudy(Terminal(file=out, force_terminal=True, width=90)) as live:
        live(EVENTS[0][1])
        live({"event": "latency"})
        out.truncate(0)
        live.view.live.refresh()
    assert "measuring latency and memory" in out.getvalue() and "0 of 5" not in out.getvalue()


def test_the_view_on_a_terminal_shows_what_runs_and_the_table_so_far() -> None:
    out = io.StringIO()
    with LiveStudy(Terminal(file=out, force_terminal=True, width=90)) as live:
        for _, event in EVENTS:
            live(event)
        live.view.live.refresh()
    text = out.getvalue()
    for words in (
        "2 of 5 runs done, 1 running, 1 failed",
        "epoch 1 of 2  loss 0.500  900 images/s",
        "eca  seed 3  diverged: the loss is nan",
    ):
        assert words in text
    assert "top-1 so far" in text and "50.00" in text


def test_elsewhere_each_line_says_whose_it_is(capsys) -> None:
    with LiveStudy() as live:
        for _, event in EVENTS:
            live(event)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "5 runs, 1 already finished; seeds 3 4; runs/x",
        "run 1/5  none  seed 3  top-1 50.00 %  was finished before",
        "run 3/5  eca  seed 3  diverged: the loss is nan",
        "run 2/5  cpsam  seed 3  top-1 25.00 %  8.0 s",
    ]


def test_that_another_process_is_at_the_last_runs_is_said_once(capsys) -> None:
    with LiveStudy() as live:
        for left in (2, 2, 1):
            live({"event": "waiting", "runs": left})
    assert capsys.readouterr().err.splitlines() == [
        "another process is at the 2 runs that are left; waiting for it"
    ]


PLAN = {
    "event": "plan",
    "runs": 1,
    "ended": 0,
    "seeds": [3],
    "folder": "runs/x",
    "computes": {"device": "cpu", "precision": "float32", "channels_last": True, "threads": 2},
    "settings": [
        {
            "name": "late",
            "model": "timm/resnet18",
            "at": ["before-last", "layer3.*"],
            "weights": "w.pth",
            "heads": ["classifier fc starts anew: 1000 classes in the file, 100 wanted"],
            "data": {
                "name": "cifar100",
                "note": "a fifth of train is held out",
                "train_images": 40_000,
                "test_images": 10_000,
                "measured_on": "validation split",
                "classes": 100,
            },
        }
    ],
}


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_study_does_is_said_before_it_does_it(
    terminal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.StringIO()
    with LiveStudy(
        Terminal(file=out, force_terminal=True, width=200) if terminal else None
    ) as live:
        live(PLAN)
    said = out.getvalue() if terminal else capsys.readouterr().err
    for line in (
        (
            "late: timm/resnet18 at before-last, layer3.*; cifar100: 40,000 images to train on,"
            " 10,000 of the validation split to measure on, 100 classes"
        ),
        "a fifth of train is held out",
        "starts from w.pth; classifier fc starts anew: 1000 classes in the file, 100 wanted",
        "on cpu, in float32, channels last, 2 threads",
        "1 run, 0 already finished; seeds 3; runs/x",
    ):
        assert line in said

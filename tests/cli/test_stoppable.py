"""A signal while no run is at a step: data is loaded, or latencies are measured."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cpsam.cli import main

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("verb", ["train", "compare", "study"])
def test_it_is_exit_75(
    number: signal.Signals, verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def struck(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)  # the signal comes first
        pytest.fail("not stopped")

    (tmp_path / "plan.toml").write_text("")
    monkeypatch.setattr("cpsam.study.run.load_dataset", struck)
    monkeypatch.setattr("cpsam.study.plan_file.read_plan", struck)
    before = [signal.getsignal(each) for each in SIGNALS]
    words = {"train": ["--out", str(tmp_path / "run")], "compare": ["--out", str(tmp_path)], "study": [str(tmp_path / "plan.toml")]}
    with pytest.raises(SystemExit) as left:
        main([verb, *words[verb]])
    assert left.value.code == 75
    assert capsys.readouterr().err == "cpsam: stopped while no run was at a step; nothing is lost, and the same command continues\n"
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def run(words: list[str]) -> None:
        seen.append(signal.getsignal(signal.SIGUSR1))

    monkeypatch.setattr("cpsam.cli.train.run", run)
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        main(["train"])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIG_IGN]

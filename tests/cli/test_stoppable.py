"""A signal while no run is at a step: data is loaded, or latencies are measured."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cpsam.cli import main
from cpsam.cli.stoppable import stoppable
from cpsam.errors import StoppedError

SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("verb", ["train", "compare", "study"])
def test_it_is_exit_75(
    number: signal.Signals,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def struck(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)  # the signal comes first
        pytest.fail("not stopped")

    (tmp_path / "plan.toml").write_text("")
    monkeypatch.setattr("cpsam.run.data.load_dataset", struck)
    monkeypatch.setattr("cpsam.config.plan_file.read_plan", struck)
    before = [signal.getsignal(each) for each in SIGNALS]
    words = {
        "train": ["--out", str(tmp_path / "run")],
        "compare": ["--out", str(tmp_path)],
        "study": [str(tmp_path / "plan.toml")],
    }
    with pytest.raises(SystemExit) as left:
        main([verb, *words[verb]])
    assert left.value.code == 75
    assert (
        capsys.readouterr().err
        == "cpsam: stopped while no run was at a step; nothing is lost, and the same command"
        " continues\n"
    )
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


@pytest.mark.parametrize("verb", ["eval", "data", "cost", "field", "list"])
def test_ctrl_c_in_a_verb_that_does_not_resume_is_exit_130(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(f"cpsam.cli.{verb}.run", lambda words: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as left:
        main([verb])
    assert left.value.code == 130
    assert capsys.readouterr().err == "cpsam: interrupted\n"


@pytest.mark.parametrize("swallow", [True, False])
def test_a_signal_while_modules_are_imported_is_no_error_of_an_import(
    swallow: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:  # as compiled modules do
            if not swallow:
                raise ImportError("numpy failed to import") from None

    monkeypatch.setattr("cpsam.cli.import_module", broken)
    with pytest.raises(SystemExit) as left:
        main(["train"])
    assert left.value.code == 75 and "stopped while no run was at a step" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_stop_was_told_changes_nothing(
    number: signal.Signals, tmp_path: Path
) -> None:
    code = f"""
import os, signal, sys
import cpsam.cli, cpsam.cli.train
from cpsam.errors import StoppedError
def run(words):
    raise StoppedError("stopped after step 3; the last checkpoint is of step 3")
cpsam.cli.train.run = run
sys.argv = ["cpsam", "train"]
try:
    cpsam.cli.main()
finally:
    os.kill(os.getpid(), {int(number)})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        75,
        "cpsam: stopped after step 3; the last checkpoint is of step 3\n",
    )


def test_a_signal_on_the_way_out_does_not_hide_what_was_told() -> None:
    with pytest.raises(StoppedError, match="step 3"), stoppable():
        try:
            raise StoppedError("stopped after step 3")
        finally:
            signal.raise_signal(signal.SIGTERM)

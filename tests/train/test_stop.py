"""A signal sets a flag; only a second Ctrl-C of a person acts at once."""

import os
import signal
from pathlib import Path

import pytest
from support.tiny_runs import run

from cpsam.errors import STOP_SIGNALS as SIGNALS
from cpsam.errors import StoppedError
from cpsam.train.stop import Stop, StopRequest


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("times", [1, 3])
def test_signals_set_a_flag_that_is_not_swallowed(number: signal.Signals, times: int) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Stop), StopRequest(echoes=True) as request:
        assert not request.requested
        for _ in range(times):
            os.kill(os.getpid(), number)
        assert request.requested
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_the_second_ctrl_c_acts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # launchers repeat themselves
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with StopRequest() as request:
            signal.raise_signal(signal.SIGUSR1)
            assert not request.requested
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_time_sets_the_flag_too_and_leaves_no_exception_behind() -> None:
    with StopRequest(max_minutes=1e-9) as request:
        assert request.requested
    with StopRequest(max_minutes=60) as request:
        assert not request.requested


def test_a_run_that_is_torn_off_says_which_checkpoint_is_left(tmp_path: Path) -> None:
    def on_event(event: dict[str, object]) -> None:
        if event["event"] == "evaluation" and event["epoch"] == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(
        StoppedError, match="stopped after step 8 of 12; the last checkpoint is of step "
    ):
        run(tmp_path, on_event=on_event)

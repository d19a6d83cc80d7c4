"""Messages are not the run: a standard error that is closed, full or gone changes neither results
nor exit codes.
"""

import errno
import io
import json
import subprocess
import sys

import pytest

from cpsam.cli import main
from cpsam.cli.messages import Messages
from cpsam.progress import ProgressBars


class Broken(io.StringIO):
    """Fails from the second write on, and then may not be written again."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.writes = number, 0

    def write(self, text: str) -> int:
        self.writes += 1
        if self.writes > 1:
            raise OSError(self.number, "broken")
        return super().write(text)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF])
def test_once_it_fails_it_stays_silent(number: int) -> None:
    stream = Broken(number)
    messages = Messages(stream)
    for words in ("first", "second", "third"):
        print(words, file=messages, end="")
        messages.flush()
    assert (stream.getvalue(), stream.writes) == ("first", 2)
    assert not messages.isatty()


def test_progress_is_drawn_into_the_void(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", Messages(Broken(errno.ENOSPC)))
    with ProgressBars() as progress:
        for epoch in (1, 2, 3):
            progress(
                {"event": "epoch", "epoch": epoch, "epochs": 3, "train_loss": 1.0, "top1": 0.5}
            )
    assert capsys.readouterr().out == ""


def test_without_standard_error_standard_output_is_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as left:
        main(["lst"])
    assert left.value.code == 2
    main(["list", "models", "--json"])
    assert "resnet20" in json.loads(capsys.readouterr().out)["models"]


@pytest.mark.parametrize(
    ("redirection", "words", "code"),
    [("2>/dev/full", "lst", 2), ("2>&-", "lst", 2), ("2>/dev/full", "list models", 0)],
)
def test_the_exit_code_is_the_same(redirection: str, words: str, code: int) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m cpsam.cli {words} {redirection}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == code and ("resnet20" in done.stdout) == (code == 0)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nto allocate 4"
            " bytes"
        ),
    ],
)
def test_too_little_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(words: list[str]) -> None:
        raise error

    monkeypatch.setattr("cpsam.cli.list.run", run)
    with pytest.raises(SystemExit) as left:
        main(["list"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("cpsam: not enough memory (")

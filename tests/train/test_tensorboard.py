"""TensorBoard is imported only when a run asks for it."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support import killed_runs, processes
from support.tiny_runs import interrupt, run

from cpsam.config.run_options import RunOptions
from cpsam.errors import StoppedError, UserError

BOARD = RunOptions(tensorboard=True)


def test_training_does_not_import_it(tmp_path: Path) -> None:
    assert processes.end(processes.start(killed_runs.note_modules, tmp_path)) == 0
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert "cpsam.train.tensorboard" in modules
    assert not [name for name in modules if name.startswith(("tensorboard", "torch.utils.tensorb"))]


def test_without_it_the_extra_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        UserError, match=r"TensorBoard is not installed: pip install 'cpsam\[tensorboard\]'"
    ):
        run(tmp_path / "run", options=BOARD)
    assert not (tmp_path / "run").exists()


def test_what_is_reported_is_written_and_a_resumed_run_goes_on_behind_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            calls.append(("open", folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            calls.append((name, round(value, 6), step))

        def close(self) -> None:
            calls.append(("close",))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with pytest.raises(StoppedError):
        run(tmp_path, options=BOARD, on_event=interrupt("epoch", 1))
    run(tmp_path, options=BOARD)
    assert [call for call in calls if call[0] in ("open", "close")] == [
        ("open", str(tmp_path / "tensorboard"), 1),
        ("close",),
        ("open", str(tmp_path / "tensorboard"), 5),
        ("close",),
    ]
    assert [call[2] for call in calls if call[0] == "epoch/top1"] == [4, 8, 12]
    assert {call[0] for call in calls if call[0].startswith("step/")} == {
        "step/loss",
        "step/lr",
        "step/images_per_s",
    }

"""Whatever happens to the processes at a study, in any order: each run ends once, none is lost, and
no folder is shared.
"""

import json
import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
from support.fake_studies import ENDED, VIOLATIONS, fake_study, master

SEQUENCES = int(os.environ.get("CPSAM_FUZZ", "200"))
ARMS = ("none", "cpsam", "non_local", "eca", "bam", "cbam")
PLACES = ("before-last", "early", "every-branch")


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Children that have all imported before they are born."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cpsam.study.conduct"])
    return context


def outcomes(folder: Path) -> dict[str, str]:
    names = ("summary.json", "diverged.json", "failed.json")
    return {
        str(path.relative_to(folder)): path.read_text()
        for name in names
        for path in folder.glob(f"*/{name}")
    }


def random_study(
    draw: random.Random, arms: int, seeds: int, places: int
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """The first so many of each, in any order: a larger study has every run of a smaller one."""
    return ARMS[:arms], tuple(draw.sample(range(7, 7 + seeds), seeds)), PLACES[:places]


@pytest.mark.parametrize("block", range(10))
def test_random_kills_extensions_and_two_masters(
    processes: ForkServerContext, tmp_path: Path, block: int
) -> None:
    happened = dict.fromkeys(("start", "kill", "extend", "wait"), 0)
    for sequence in range(block, SEQUENCES, 10):
        draw = random.Random(sequence)
        folder = tmp_path / str(sequence)
        size = [draw.randint(2, 4), draw.randint(1, 3), draw.randint(1, 2)]
        alive: list[ForkServerProcess] = []
        kept: dict[str, str] = {}

        def start() -> None:
            study = fake_study(*random_study(draw, *size))  # noqa: B023
            child = processes.Process(target=master, args=(study, folder))  # noqa: B023
            child.start()
            alive.append(child)  # noqa: B023

        start()
        for _ in range(draw.randint(2, 6)):
            event = draw.choice(("start", "kill", "kill", "extend", "wait"))
            happened[event] += 1
            if event == "start" and len(alive) < 3:
                start()
            elif event == "extend":
                axis = draw.randrange(3)
                size[axis] = min(size[axis] + 1, (len(ARMS), 5, len(PLACES))[axis])
                start()
            elif event == "kill" and alive:
                time.sleep(draw.random() * 0.02)
                victim = alive.pop(draw.randrange(len(alive)))
                with suppress(ProcessLookupError):  # it may have ended by itself
                    os.kill(victim.pid, signal.SIGKILL)
                victim.join()
            time.sleep(draw.random() * 0.01)
            now = outcomes(folder)
            assert kept.items() <= now.items(), "an end was lost or changed"
            kept = now
        start()
        for child in alive:
            child.join(60)
            assert child.exitcode == 0, f"sequence {sequence}"
        promised = [set(json.loads(path.read_text())) for path in folder.glob(f"{ENDED}*")]
        final = max(promised, key=len)
        assert len(promised) >= len(alive)
        assert all(names <= final for names in promised)
        ended = outcomes(folder)
        assert kept.items() <= ended.items()
        assert final <= {name.partition("/")[0] for name in ended}, "a run was lost"
        assert len({name.partition("/")[0] for name in ended}) == len(ended), (
            "a run ended in two ways"
        )
        violations = folder / VIOLATIONS
        assert not violations.exists(), f"sequence {sequence}: {violations.read_text()}"
        plans = json.loads((folder / "plans.json").read_text())["plans"]
        assert set(plans[-1]["runs"]) <= final
    assert SEQUENCES < 100 or min(happened.values()) > 0

"""Estimates how long a study takes on this machine, from two timed steps per arm."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cpsam.study.plan import Plan
from cpsam.study.run_reader import RunReader
from cpsam.study.runs_at_once import seconds_together
from cpsam.train.compute import choose_compute
from cpsam.train.step_time import STEPS, run_seconds, seconds_per_image


@dataclass(frozen=True)
class ArmEstimate:
    """The time of one arm.

    Attributes:
        run_seconds: Of one run: its steps, and an evaluation after each epoch.
        runs: Runs that are still to do.
    """

    run_seconds: float
    runs: int


def estimate(
    plan: Plan,
    read: RunReader,
    at_once: int = 1,
    on_arm: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Times training steps of each arm that has runs to do, and returns the time of all runs.

    Nothing is written. The estimate leaves out the time to load images, and takes a run to be as
    fast beside others as alone.

    Args:
        plan: The study.
        read: Reads the runs of the study; those that have ended take no time.
        at_once: How many runs are executed at once.
        on_arm: Told of the number of arms that are timed, and of all.
    """
    run_times: dict[str, float] = {}
    arms: dict[str, ArmEstimate] = {}
    compute = choose_compute(plan.study.recipe)
    compute = replace(compute, threads=plan.study.threads or compute.threads)
    for index, arm in enumerate(plan.arms):
        on_arm(index, len(plan.arms))
        # a run that two settings share is made once
        names = {spec.folder_name for spec in arm.specs} - run_times.keys()
        left = [name for name in names if not read.has_ended(name)]
        if left:
            loaded = plan.loaded[arm.setting]
            dataset = loaded.dataset
            timed = replace(choose_compute(arm.recipe), threads=compute.threads)
            pace = seconds_per_image(
                loaded.build(arm.arm, seed=0),
                arm.recipe,
                loaded.input_shape,
                dataset.num_classes,
                timed,
            )
            seconds = run_seconds(pace, arm.recipe, len(dataset.train), len(dataset.evaluation))
            arms[plan.label(arm.setting, arm.arm.name)] = ArmEstimate(seconds, len(left))
            run_times |= dict.fromkeys(left, seconds)
    on_arm(len(plan.arms), len(plan.arms))
    in_order = [run_times[name] for spec in plan.runs if (name := spec.folder_name) in run_times]
    return {
        "seconds": seconds_together(in_order, at_once),
        "runs_at_once": at_once,
        "runs": sum(each.runs for each in arms.values()),
        "timed_steps": STEPS,
        "device": compute.device,
        "precision": compute.precision,
        "threads": compute.threads,
        "arms": {
            name: {"run_seconds": each.run_seconds, "runs": each.runs}
            for name, each in arms.items()
        },
    }

"""Measures latency and memory of every arm on this machine."""

from collections.abc import Mapping
from typing import Any

from cpsam.run.cost import LATENCY_BATCH, MEMORY_BATCH, latencies, training_memory
from cpsam.run.events import OnEvent
from cpsam.run.records import StoredRun
from cpsam.study.plan import Plan
from cpsam.torch_state import thread_count
from cpsam.train.compute import choose_compute, find_device
from cpsam.train.environment import environment


def measure_arms(plan: Plan, runs: Mapping[str, StoredRun], on_event: OnEvent) -> dict[str, Any]:
    """Returns the environment here, and the times and the memory of each arm.

    The latencies of all arms of a setting are measured in turn.
    """
    on_event({"event": "latency"})
    with thread_count(plan.study.threads):
        compute, device = choose_compute(plan.study.recipe), find_device()
        times: dict[str, Any] = {}
        for name, loaded in plan.loaded.items():
            arms = {plan.label(name, arm.arm.name): arm for arm in plan.arms if arm.setting == name}
            models = {label: loaded.build(arm.arm, seed=0) for label, arm in arms.items()}
            measured = latencies(models, loaded.dataset, compute)
            for label, model in models.items():
                outcomes = [runs[spec.folder_name].outcome for spec in arms[label].specs]
                times[label] = {
                    "latency_ms": measured[label],
                    "peak_memory_bytes": training_memory(model, loaded.dataset, compute),
                    "train_seconds": [end and end.train_seconds for end in outcomes],
                }
        timing = {"arms": times, "batch_size": LATENCY_BATCH, "memory_batch_size": MEMORY_BATCH}
        return {"environment": environment(compute, device), "timing": timing}

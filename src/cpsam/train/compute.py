"""What a run computes with: device, precision, memory format, threads. They are settled once and
are part of the run.

What gains, measured on ResNet-20 steps of 128 images of 32x32 against float32 and NCHW on two
threads: channels_last always did (1.2 to 1.3); bfloat16 did on processors that multiply it in wider
units than float32 (1.7, and 2.3 with channels_last), and lost a third on an Intel Xeon that has the
AVX-512 instruction for it but no AMX. So the instruction alone is no reason.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from cpsam.config.recipe import MOST_THREADS, Recipe
from cpsam.errors import DataError, UserError


@dataclass(frozen=True)
class Compute:
    """What a run computes with.

    Args:
        device: "cpu" or "cuda".
        precision: "float32", "bfloat16" or "float16".
        channels_last: Memory format of images and weights.
        threads: Threads of an operation on the CPU. They decide the order of sums, so the same run
            needs the same number.
    """

    device: str
    precision: str
    channels_last: bool
    threads: int

    @classmethod
    def parse(cls, settled: object, where: str) -> "Compute":
        """Returns what a run was begun with, from its `config.json`.

        Raises:
            DataError: If a field is missing, unknown, or not what it must be.
        """
        rules = {
            "device": ("cpu", "cuda"),
            "precision": ("float32", "bfloat16", "float16"),
            "channels_last": (True, False),
            "threads": range(1, MOST_THREADS + 1),
        }
        if not isinstance(settled, dict):
            raise DataError(f"{where} must be an object")
        if wrong := sorted(rules.keys() ^ settled.keys()):
            raise DataError(
                f"{where} must have {', '.join(rules)}; {wrong[0][:60]!r} is"
                f" {'missing' if wrong[0] in rules else 'unknown'}"
            )
        for name, allowed in rules.items():
            value = settled[name]
            if type(value) is not type(allowed[0]) or value not in allowed:
                choices = (
                    f"from 1 to {MOST_THREADS}"
                    if name == "threads"
                    else " or ".join(map(str, allowed))
                )
                raise DataError(f"{where}.{name} must be {choices}; it is {str(value)[:60]!r}")
        return cls(**settled)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


def choose_compute(recipe: Recipe, device: torch.device | str | None = None) -> Compute:
    """What "auto" in the recipe means here.

    Args:
        recipe: Its `precision` and `channels_last`.
        device: Where to train; by default the GPU if there is one.

    Raises:
        UserError: If the device is not there or is neither a CPU nor a CUDA GPU.
    """
    kind = find_device(device).type
    precision = (
        ("bfloat16" if bfloat16_gains(kind) else "float32")
        if recipe.precision == "auto"
        else recipe.precision
    )
    # On a GPU without tensor cores at work, NCHW is the faster one.
    channels_last = (
        kind == "cpu" or precision != "float32"
        if recipe.channels_last == "auto"
        else recipe.channels_last == "on"
    )
    return Compute(kind, precision, channels_last, torch.get_num_threads())


def find_device(device: torch.device | str | None = None) -> torch.device:
    """The device that is meant; by default the GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(
            f"device must be 'cpu' or 'cuda', perhaps with a number; got {device!r}"
        ) from error
    if found.type not in ("cpu", "cuda"):
        raise UserError(f"device must be 'cpu' or 'cuda', perhaps with a number; got {device!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {str(device)!r} is not there: torch sees {torch.cuda.device_count()} CUDA GPUs"
        )
    return found


def bfloat16_gains(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bfloat16_gains_on(processor())


def bfloat16_gains_on(features: dict[str, Any]) -> bool:
    """From what a processor says of itself, never from a stopwatch: the same command must mean the
    same on the same kind of machine.
    """
    # its units run the instruction at twice the rate of float32
    amd = str(features.get("cpu_name", "")).startswith("AMD")
    return bool(features.get("amx_bf16") or (amd and features.get("avx512_bf16")))


@cache
def processor() -> dict[str, Any]:
    """Name and features of this machine's processor, as torch reports them; empty where it does
    not.
    """
    report = getattr(torch.cpu, "get_capabilities", None)
    return dict(report()) if report else {}


@contextmanager
def reproducible(compute: Compute, device: torch.device) -> Iterator[None]:
    """Sets the threads of `compute`, and on a GPU deterministic kernels; restores the global state
    afterwards.
    """
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(compute.threads)
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        if device.type == "cuda":
            for name, value in (("deterministic", True), ("benchmark", False)):
                stack.callback(
                    setattr, torch.backends.cudnn, name, getattr(torch.backends.cudnn, name)
                )
                setattr(torch.backends.cudnn, name, value)
        yield

"""What a run computes with: device, precision, memory format and threads.

It is chosen once and is part of the run.

Measured on ResNet-20 steps of 128 images of 32x32, against float32 and NCHW on two threads:
channels_last always was faster, by 1.2 to 1.3. bfloat16 was faster on processors that multiply it
in wider units than float32, by 1.7, and by 2.3 with channels_last. It was a third slower on an
Intel Xeon that has the AVX-512 instruction for it but no AMX. So the instruction alone is no
reason.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch

from cpsam.config.ranges import MOST_THREADS
from cpsam.config.recipe import Recipe
from cpsam.errors import DataError, UserError
from cpsam.text import shorten
from cpsam.torch_state import deterministic_algorithms, deterministic_cudnn, thread_count
from cpsam.typed import checked

CHOICES = {"device": ("cpu", "cuda"), "precision": ("float32", "bfloat16", "float16")}


@dataclass(frozen=True)
class Compute:
    """What a run computes with.

    Args:
        device: "cpu" or "cuda".
        precision: "float32", "bfloat16" or "float16".
        channels_last: Memory format of images and weights.
        threads: Threads per operation on the CPU. They decide the order of sums, so the same run
            needs the same number.
    """

    device: str
    precision: str
    channels_last: bool
    threads: int

    @classmethod
    def parse(cls, stored: object, where: str) -> "Compute":
        """Returns what a run was begun with, from its `config.json`.

        Raises:
            DataError: If a field is missing, unknown, or not what it must be.
        """
        compute: Compute = checked(cls, stored, where)
        known = [field.name for field in fields(cls)]
        if isinstance(stored, dict) and (unknown := sorted(stored.keys() - set(known))):
            raise DataError(
                f"{where}: must have {', '.join(known)} alone; got {shorten(unknown[0])}"
            )
        for name, choices in CHOICES.items():
            if (value := getattr(compute, name)) not in choices:
                allowed = " or ".join(choices)
                raise DataError(f"{where}: {name} must be {allowed}; got {shorten(value)}")
        if not 1 <= compute.threads <= MOST_THREADS:
            raise DataError(
                f"{where}: threads must be from 1 to {MOST_THREADS:,}; got {compute.threads}"
            )
        return compute

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


def choose_compute(recipe: Recipe, device: torch.device | str | None = None) -> Compute:
    """Returns what a new run computes with on this machine: what "auto" in the recipe means here.

    Args:
        recipe: Its `precision` and `channels_last`.
        device: Where to train; by default the GPU if there is one.

    Raises:
        UserError: If the device is not there or is neither a CPU nor a CUDA GPU.
    """
    kind = find_device(device).type
    precision: str = recipe.precision
    if precision == "auto":
        precision = "bfloat16" if bfloat16_is_faster(kind) else "float32"
    # A GPU computes float32 faster in NCHW.
    channels_last = kind == "cpu" or precision != "float32"
    if recipe.channels_last != "auto":
        channels_last = recipe.channels_last == "on"
    return Compute(kind, precision, channels_last, torch.get_num_threads())


def find_device(device: torch.device | str | None = None) -> torch.device:
    """Returns the device that is meant; by default the GPU if there is one.

    Raises:
        UserError: If it is not there or is neither a CPU nor a CUDA GPU.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wrong = UserError(f"device must be 'cpu' or 'cuda', perhaps with a number; got {device!r}")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise wrong from error
    if found.type not in ("cpu", "cuda"):
        raise wrong
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {str(device)!r} is not there: torch sees {torch.cuda.device_count()} CUDA GPUs"
        )
    return found


def bfloat16_is_faster(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return has_fast_bfloat16(processor_features())


def has_fast_bfloat16(features: dict[str, Any]) -> bool:
    """Returns whether a processor multiplies bfloat16 faster than float32, by its features.

    The choice is not timed: the same command must mean the same on the same kind of machine.
    """
    # AMD's units run the AVX-512 instruction at twice the rate of float32.
    amd = str(features.get("cpu_name", "")).startswith("AMD")
    return bool(features.get("amx_bf16") or (amd and features.get("avx512_bf16")))


@cache
def processor_features() -> dict[str, Any]:
    """Returns name and features of this processor as torch reports them; empty if it does not."""
    report = getattr(torch.cpu, "get_capabilities", None)
    return dict(report()) if report else {}


@contextmanager
def reproducible(compute: Compute, device: torch.device) -> Iterator[None]:
    """Sets the threads of `compute`, and deterministic kernels on a GPU.

    Restores torch's global state afterwards.
    """
    is_cuda = device.type == "cuda"
    with (
        thread_count(compute.threads),
        torch.random.fork_rng([device] if is_cuda else []),
        deterministic_cudnn() if is_cuda else nullcontext(),
    ):
        yield


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Lets torch take deterministic algorithms alone.

    Raises:
        UserError: If an operation has none; the message of torch names it.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product
    try:
        with deterministic_algorithms():
            yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason, _, _ = str(error).partition(" You can turn off")
        raise UserError(f"deterministic is not possible: {reason}") from error

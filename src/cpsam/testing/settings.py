"""Torch's settings for the whole process, which a block must leave as they are."""

from collections.abc import Callable
from typing import Any

import torch

from cpsam.torch_state import set_determinism

SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the precision of float32 products": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "deterministic algorithms": (torch.get_deterministic_debug_mode, set_determinism),
    "whether gradients are recorded": (torch.is_grad_enabled, torch.set_grad_enabled),
}
"""How each of torch's settings for the whole process is read and set."""


def settings() -> dict[str, Any]:
    return {name: read() for name, (read, _) in SETTINGS.items()}


def restore(kept: dict[str, Any]) -> None:
    for name, value in kept.items():
        SETTINGS[name][1](value)

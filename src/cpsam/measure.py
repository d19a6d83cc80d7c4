"""Measures what a network costs: parameters, multiply-adds, latency, memory."""

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cpsam.errors import UserError
from cpsam.seeds import generator
from cpsam.torch_state import ONE_THREAD, call_on_meta

ExampleOrShape = Sequence[int] | Tensor | Sequence[Any] | Mapping[str, Any]

# torch counts a multiplication and an addition; the only division by it is in `count_macs`
FLOPS_PER_MAC = 2


def softmax_flop(logits_shape: Sequence[int], *args: object, **kwargs: object) -> int:
    return FLOPS_PER_MAC * prod(logits_shape)  # each element is added once to its denominator


def vector_flop(
    matrix_shape: Sequence[int], vector_shape: Sequence[int], *args: object, **kwargs: object
) -> int:
    return FLOPS_PER_MAC * prod(matrix_shape)


def addmv_flop(
    input_shape: Sequence[int], matrix_shape: Sequence[int], *args: object, **kwargs: object
) -> int:
    return FLOPS_PER_MAC * prod(matrix_shape)


def addbmm_flop(
    input_shape: Sequence[int],
    left_shape: Sequence[int],
    right_shape: Sequence[int],
    *args: object,
    **kwargs: object,
) -> int:
    return FLOPS_PER_MAC * prod(left_shape) * right_shape[-1]


# What torch's own table leaves out. On the meta device `scaled_dot_product_attention` falls apart
# into two bmm and a `_safe_softmax` in every form (masked, causal, grouped queries, three axes), so
# that its fused kernels need no line here.
MISSING_FORMULAS = {
    torch.ops.aten._softmax: softmax_flop,
    torch.ops.aten._safe_softmax: softmax_flop,
    torch.ops.aten.mv: vector_flop,
    torch.ops.aten.dot: vector_flop,
    torch.ops.aten.addmv: addmv_flop,
    torch.ops.aten.addbmm: addbmm_flop,
}


def count_parameters(module: nn.Module) -> int:
    """Returns the number of parameters; one that several modules share counts once.

    Example:
        >>> count_parameters(nn.Linear(4, 3))
        15
    """
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, example: ExampleOrShape) -> int:
    """Returns the multiply-accumulate operations of one forward in eval mode.

    It counts convolutions and matrix products without their biases, and one MAC per element of a
    softmax, for its denominator. As usual it leaves out norms, activations, pooling, and products
    written element by element. Masked attention counts as dense.

    Nothing is computed: meta tensors replace parameters, buffers and input, and `module` stays as
    it was.

    Args:
        module: Any module.
        example: The shape of its input, batch included, such as ``(1, 3, 224, 224)``, or a tensor
            of that shape, whose values are not read. Several arguments are a tuple, or a dict by
            name. A shape alone gets the dtype of the module's first floating-point parameter.

    Raises:
        UserError: If the forward fails without values: the shape does not fit, or the module reads
            a value.

    Example:
        >>> count_macs(nn.Conv2d(4, 6, 3, padding=1, groups=2), (1, 4, 5, 7))
        3780
    """
    counter = FlopCounterMode(display=False, custom_mapping=MISSING_FORMULAS)
    try:
        args, kwargs = arguments_of(module, example)
        with ONE_THREAD, counter:
            call_on_meta(module, *args, **kwargs)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        what = f"{type(module).__name__} on an input of shape {shape_of(example)}"
        raise UserError(f"cannot count the MACs of {what}: {reason}") from error
    return counter.get_total_flops() // FLOPS_PER_MAC


def shape_of(example: ExampleOrShape) -> str:
    if isinstance(example, Tensor):
        return str(tuple(example.shape))
    values = example.values() if isinstance(example, Mapping) else example
    return str(tuple(tuple(x.shape) if isinstance(x, Tensor) else x for x in values))


def arguments_of(module: nn.Module, example: ExampleOrShape) -> tuple[Sequence[Any], dict]:
    """Returns an example as arguments of a forward, by position and by name."""
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if not all(isinstance(side, int) for side in example):
        return tuple(example), {}
    tensors = (*module.parameters(), *module.buffers())
    dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)
    return (torch.empty(tuple(example), dtype=dtype, device="meta"),), {}


@dataclass(frozen=True)
class Latency:
    """Holds the milliseconds of one call: median and quartiles over `n` calls."""

    median: float
    q1: float
    q3: float
    n: int


def synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def measure_latency(
    steps: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 30,
    warmup: int = 3,
    min_time: float = 0.0,
) -> dict[str, Latency]:
    """Times several steps in turn, so that a machine that slows down slows all of them.

    A round calls each step once, in a new random order. So no step always finds the caches as the
    same neighbour leaves them.

    Args:
        steps: Name -> what to time.
        repeats: The least number of rounds.
        warmup: Rounds before, which are not counted.
        min_time: The least number of seconds that all counted rounds last together.

    Returns:
        Name -> its :class:`Latency` in milliseconds, in the order of `steps`.

    Raises:
        UserError: If there is nothing to time, or not one round to time it in.
    """
    if not steps or repeats < 1 or warmup < 0:
        raise UserError(
            f"latency needs a step, repeats >= 1 and warmup >= 0; got {len(steps)} steps,"
            f" repeats={repeats}, warmup={warmup}"
        )
    order = generator(0, "latency")
    names = list(steps)
    for name in names * warmup:
        steps[name]()
    milliseconds: dict[str, list[float]] = {name: [] for name in names}
    started, rounds = time.perf_counter(), 0
    while rounds < repeats or time.perf_counter() - started < min_time:
        for index in order.permutation(len(names)):
            synchronize()
            begin = time.perf_counter()
            steps[names[index]]()
            synchronize()
            milliseconds[names[index]].append(1e3 * (time.perf_counter() - begin))
        rounds += 1
    quartiles = {
        name: np.percentile(values, (50, 25, 75)).tolist() for name, values in milliseconds.items()
    }
    return {name: Latency(*quartiles[name], n=rounds) for name in names}


def forward_step(
    model: nn.Module,
    batch: Tensor,
    *,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
) -> Callable[[], Tensor]:
    """Returns one forward of a copy of a model as a step for :func:`measure_latency`.

    It runs in eval mode, without gradients.

    Args:
        model: The network; the copy stays on its device.
        batch: Its input, (N, C, H, W), on the same device.
        autocast: The dtype of autocast, such as ``torch.bfloat16``, or None for none.
        channels_last: Whether weights and batch are channels-last.
    """
    model = copy.deepcopy(model).eval()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        batch = batch.contiguous(memory_format=torch.channels_last)

    def step() -> Tensor:
        with (
            torch.inference_mode(),
            torch.autocast(batch.device.type, autocast, enabled=autocast is not None),
        ):
            return model(batch)

    return step


def saved_bytes(module: nn.Module, features: Tensor) -> int:
    """Returns the bytes that a training forward saves for the backward pass.

    Parameters and the features themselves do not count. The module stays in training mode.

    Example:
        >>> saved_bytes(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()), torch.zeros(2, 3, 5, 7))
        1120
    """
    if len(features) == 1:  # BatchNorm cannot train on a single value per channel.
        return saved_bytes(module, features.repeat(2, 1, 1, 1)) // 2
    given = [*module.parameters(), features]
    owned = {tensor.untyped_storage().data_ptr() for tensor in given}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = module.train()(features.requires_grad_())
    del result
    return sum(kept.values())


def peak_memory_bytes(step: Callable[[], object], *, device: torch.device | str = "cpu") -> int:
    """Returns the most bytes that `step` had allocated at once, beyond those before it.

    On the CPU it sees the allocations of torch's allocator, with the temporary buffers of kernels.
    It does not see what oneDNN allocates, or that `step` frees something older. On CUDA it sees
    those of the caching allocator.

    Args:
        step: What to run. It runs once, so call it before if its first call allocates for good.
        device: ``"cpu"`` or a CUDA device.

    Raises:
        UserError: If the device is of another type.

    Example:
        >>> peak_memory_bytes(lambda: torch.zeros(10, 25).sum(0))
        1100
    """
    where = torch.device(device)
    if where.type == "cuda":
        torch.cuda.synchronize(where)
        before = torch.cuda.memory_allocated(where)
        torch.cuda.reset_peak_memory_stats(where)
        step()
        torch.cuda.synchronize(where)
        return torch.cuda.max_memory_allocated(where) - before
    if where.type != "cpu":
        raise UserError(f"peak memory is measured on cpu and cuda; got {where.type!r}")
    # Otherwise the profiler reports a missing GPU as an error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    profiler = torch.autograd.profiler.profile(use_kineto=False, profile_memory=True)
    with profiler:
        step()
    assert profiler.kineto_results is not None
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0))  # pyrefly: ignore

"""Refuses what cannot work: a host, a place or a block, with the reason."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpsam.errors import CpsamError, UserError
from cpsam.insert.hook import blocks_at, is_place
from cpsam.insert.inputs import Inputs
from cpsam.torch_state import call_on_meta, without_hooks

# By name, because the import of those that shard takes longer than an insertion.
WRAPPERS = frozenset(
    {"DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}
)


def check_host(model: nn.Module) -> None:
    """Refuses a model in which a hook that is added now would not run, or would not be seen."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("cannot insert into a scripted model: insert first, then script")
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(
                "cannot insert into a model with a scripted part: put the Python module back at"
                f" {path!r}, insert, then script"
            )
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            raise UserError(
                "cannot insert into a compiled model, whose code is fixed already: insert first,"
                " then compile"
            )
        for kind in type(module).__mro__:
            if kind.__name__ in WRAPPERS:
                raise UserError(
                    f"cannot insert into {kind.__name__}, which spreads its model over devices:"
                    " insert first, then wrap"
                )


def warn_of_rebuilding(model: nn.Module) -> None:
    """Warns of a host that a trainer builds anew, and so without attention, as ultralytics does."""
    for module in model.modules():
        if isinstance(getattr(module, "yaml", None), dict) and callable(
            getattr(module, "load", None)
        ):
            warnings.warn(
                f"a trainer that rebuilds {type(module).__name__} from its `yaml`, as ultralytics'"
                " YOLO.train() does, trains it without attention: override the trainer's get_model"
                " to build with weights=None, insert, then load the weights",
                stacklevel=3,
            )
            return


def check_shape(block: nn.Module, channels: Any) -> None:
    """Refuses a block that does not return the shape it is given, in training or evaluation.

    A block that cannot run on meta tensors of these sizes is not judged.
    """
    try:
        trial = copy.deepcopy(block).to("meta")
        dtype = next((p.dtype for p in trial.parameters() if p.is_floating_point()), torch.float32)
        given = [
            torch.empty(2, channels, *size, device="meta", dtype=dtype)
            for size in ((7, 9), (12, 16))
        ]
        with torch.no_grad(), without_hooks(trial):
            returned = [
                (x.shape, trial.train(training)(x)) for x in given for training in (False, True)
            ]
    except Exception:  # The network itself would raise it, and say where.
        return
    for shape, output in returned:
        got = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        if got != tuple(shape):
            raise UserError(
                f"cannot insert {type(block).__name__}: it must return the shape it is given,"
                f" {tuple(shape)}; got {got}"
            )


def check_place(
    path: str, place: nn.Module, block: nn.Module, pending: Sequence[nn.Module] = ()
) -> None:
    """Refuses a block if the name `attention` is taken, or its class is at the place or pending."""
    if not is_place(place) and hasattr(place, "attention"):
        raise UserError(
            f"cannot insert at {path!r}: {type(place).__name__} has an attribute 'attention' of its"
            " own; give the path of the module in it that returns its output"
        )
    present = [*blocks_at(place), *pending] if is_place(place) else pending
    if any(type(block) is type(other) for other in present):
        raise UserError(f"cannot insert at {path!r}: it has a {type(block).__name__} already")


class Bystander(nn.Module):
    """Stands where a block will stand, and must not be called."""

    def __init__(self, path: str, place: nn.Module) -> None:
        super().__init__()
        self.message = (
            f"cannot insert at {path!r}: {type(place).__name__} calls every module that it holds,"
            " and would call the block, too"
        )

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise UserError(self.message)


def refuse_collectors(model: nn.Module, places: Mapping[str, nn.Module], images: Inputs) -> None:
    """Refuses places that run whatever they hold, because a block would run inside them, too.

    Raises:
        UserError: If a child that is new in one of `places` is called.
    """
    if not places:
        return
    for path, place in places.items():
        place.add_module("attention", Bystander(path, place))
    try:
        call_on_meta(model, *images.args, **images.kwargs)
    except CpsamError:
        raise
    except Exception:  # The host fails late, as it did when it was probed.
        return
    finally:
        for place in places.values():
            del place.attention

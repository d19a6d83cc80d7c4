"""What a run is between two steps, as tensors and plain data: to a checkpoint and back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cpsam.errors import UserError
from cpsam.insert import attention_config

MODEL, AVERAGE, OPTIMIZER = "model/", "average/", "optimizer/"


def pack(
    model: nn.Module, average: nn.Module | None, optimizer: Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and plain data: the optimizer's numbers and what is inserted in the model.

    Hyperparameters are not in it. They are functions of the recipe and the step.
    """
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {AVERAGE + name: tensor for name, tensor in average.state_dict().items()}
    numbers: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{index}/{key}"] = value
            else:
                numbers[f"{index}/{key}"] = value
    return tensors, {"optimizer": numbers, "attention": attention_config(model)}


def unpack(
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    model: nn.Module,
    average: nn.Module | None,
    optimizer: Optimizer,
) -> None:
    """Put a saved state into a model, its average and an optimizer, in place; every tensor keeps
    its device and memory format.

    Raises:
        UserError: If the model is not the one that was saved.
    """
    for prefix, module in ((MODEL, model), (AVERAGE, average)):
        if module is not None:
            copy_into(
                module,
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in tensors.items()
                    if name.startswith(prefix)
                },
            )
    groups = optimizer.state_dict()["param_groups"]
    indices = [index for group in groups for index in group["params"]]
    parameters = dict(
        zip(indices, (p for group in optimizer.param_groups for p in group["params"]), strict=True)
    )
    state: dict[int, dict[str, Any]] = {}
    for name, value in {
        **tensors,
        **{OPTIMIZER + name: value for name, value in meta["optimizer"].items()},
    }.items():
        if name.startswith(OPTIMIZER):
            index, key = name.removeprefix(OPTIMIZER).split("/")
            parameter = parameters[int(index)]
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = model.state_dict()
    if differing := sorted(own.keys() ^ tensors.keys()):
        where = "the checkpoint lacks" if differing[0] in own else "the model lacks"
        raise UserError(
            f"the checkpoint is of another model: {where} {differing[0]!r}, the first of"
            f" {len(differing)} such names"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            saved = tensors[name]
            if tensor.shape != saved.shape:
                shapes = f"shape {tuple(saved.shape)} there and {tuple(tensor.shape)} here"
                raise UserError(f"the checkpoint is of another model: {name!r} has {shapes}")
            tensor.copy_(saved)

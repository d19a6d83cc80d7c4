"""Dropout before the classifier and stochastic depth, set in a network while it is trained."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch.nn.functional as F
from timm import layers
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from cpsam.errors import UserError
from cpsam.models.weights import classifiers

DROP_PATHS = ("drop_path", "drop_path1", "drop_path2")  # timm's names

SetRate = Callable[[float], AbstractContextManager[None]]


@contextmanager
def regularised(
    model: nn.Module, num_classes: int, drop_rate: float, drop_path: float
) -> Iterator[None]:
    """Adds dropout and stochastic depth for training mode, and removes them afterwards.

    Neither adds a key to the state dict. Of n residual branches, branch i is left out for a
    fraction ``drop_path * i / (n - 1)`` of the images, and scaled up for the others (Huang et al.,
    2016, arXiv:1603.09382, in timm's form).

    Args:
        model: Of timm or torchvision, or one of ours.
        num_classes: Width of its classifier.
        drop_rate: Dropout on the classifier's input; 0: none.
        drop_path: Rate of the last branch; 0: none.

    Raises:
        UserError: If there is no such layer, or no residual branch of a known form.
    """
    with ExitStack() as stack:
        if drop_rate:
            stack.enter_context(dropout_before(classifier(model, num_classes), drop_rate))
        if drop_path:
            branches = residual_branches(model)
            if not branches:
                raise UserError(
                    "drop_path needs residual branches as timm or torchvision have them, and this"
                    " network has none"
                )
            last = len(branches) - 1
            for index, set_rate in enumerate(branches):
                stack.enter_context(set_rate(drop_path * index / last if last else drop_path))
        yield


def classifier(model: nn.Module, num_classes: int) -> nn.Module:
    """Returns the last layer with so many outputs."""
    paths = classifiers(model, num_classes)
    if not paths:
        raise UserError(
            f"drop_rate needs a last layer of {num_classes} outputs, and this network has none"
        )
    return model.get_submodule(paths[-1])


@contextmanager
def dropout_before(module: nn.Module, rate: float) -> Iterator[None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return F.dropout(inputs[0], rate, module.training), *inputs[1:]

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def residual_branches(model: nn.Module) -> list[SetRate]:
    """Returns for each residual branch the function that sets its rate within a context.

    The branches are in the order of the network.
    """
    found: list[SetRate] = []
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            found.append(lambda rate, module=module: attribute_set(module, "p", rate))
        elif names := [name for name in DROP_PATHS if hasattr(module, name)]:
            found += [
                lambda rate, module=module, name=name: attribute_set(
                    module, name, layers.DropPath(rate)
                )
                for name in names
            ]
        # The residual blocks of torchvision, and ours.
        elif hasattr(module, "bn2") and hasattr(module, "downsample"):
            last = module.get_submodule("bn3" if hasattr(module, "bn3") else "bn2")
            found.append(lambda rate, last=last: drop_path_after(last, rate))
    return found


@contextmanager
def attribute_set(module: nn.Module, name: str, value: object) -> Iterator[None]:
    """Sets an attribute, and restores it afterwards."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)  # Otherwise a None would stay among the children.
        setattr(module, name, before)


@contextmanager
def drop_path_after(norm: nn.Module, rate: float) -> Iterator[None]:
    """Drops the output of a branch after its last norm.

    Attention behind that norm is dropped too, because its hook was there before.
    """

    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return layers.drop_path(output, rate, module.training)

    handle = norm.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()

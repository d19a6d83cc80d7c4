"""Run a host on meta tensors to learn what each of its modules returns; nothing is computed and no buffer moves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from cpsam.errors import UserError
from cpsam.meta import call_on_meta

# H != W, and no axis of one size repeats in the other, down to a stride of 32.
PROBE_SIZES = ((128, 160), (192, 96))


@dataclass
class Visit:
    """What one module did in the forward of each size.

    Attributes:
        order: Position among all modules in the order of finishing.
        depth: Length of the longest chain of operations from the image to the output.
        outputs: For each size, one entry a call: the shape of the tensor, or the name of the type that is no tensor.
    """

    order: int
    depth: int = 0
    outputs: list[list[tuple[int, ...] | str]] = field(default_factory=lambda: [[], []])

    @property
    def times(self) -> int:
        return max(len(calls) for calls in self.outputs)


@dataclass(frozen=True)
class Probe:
    """What two forwards of a host showed.

    Attributes:
        visits: Of each module that was called, by its path.
        sizes: Of the images, (H, W).
        failure: The error that ended a forward early, if one did.
        images: The first batch, on meta.
        rescales: Whether the host scales its images before its first convolution.
    """

    visits: dict[str, Visit]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    failure: str
    images: Tensor
    rescales: bool

    def channels(self, path: str) -> int:
        """The number of channels that the module at `path` returns.

        Raises:
            UserError: If attention has no single (N, C, H, W) output to work on there.
        """
        visit = self.visits.get(path)
        if visit is None or visit.times == 0:
            reason = f"the forward of the model stopped before it: {self.failure}" if self.failure else "it is never called in a forward"
            raise UserError(f"cannot insert at {path!r}: {reason}")
        if visit.times > 1:
            raise UserError(f"cannot insert at {path!r}: it is called {visit.times} times in a forward, so that one block would serve all")
        shapes = [calls[0] for calls in visit.outputs if calls]
        for shape in shapes:
            if isinstance(shape, str):
                raise UserError(f"cannot insert at {path!r}: it returns a {shape}, not one tensor")
            if len(shape) != 4:
                raise UserError(f"cannot insert at {path!r}: it returns {len(shape)} axes {shape}, not (N, C, H, W)")
        if len(shapes) < 2:
            raise UserError(f"cannot insert at {path!r}: its channel axis is unclear, because a second image size failed: {self.failure}")
        fixed = [axis for axis in (1, 2, 3) if shapes[0][axis] == shapes[1][axis]]
        if fixed == [3]:
            raise UserError(f"cannot insert at {path!r}: its channels are the last axis, {shapes[0]}, and attention reads (N, C, H, W)")
        if fixed != [1]:
            raise UserError(f"cannot insert at {path!r}: its channel axis is unclear, {shapes[0]} and {shapes[1]} for images {self.sizes}")
        return int(shapes[0][1])

    def stride(self, path: str) -> int:
        """How many pixels lie between two positions of the output at `path`, to the nearest power of two."""
        ratios = []
        for (height, width), calls in zip(self.sizes, self.visits[path].outputs, strict=True):
            for shape in calls[:1]:
                ratios += [height / int(shape[2]), width / int(shape[3])]
        return 2 ** round(sum(map(math.log2, ratios)) / len(ratios))


class Depths(TorchFunctionMode):
    """Marks each tensor with the length of the longest chain of operations that led to it; sees whether images are scaled first."""

    def __init__(self) -> None:
        super().__init__()
        self.convolved = self.rescales = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.convolved |= func is F.conv2d
        self.rescales |= func is F.interpolate and not self.convolved
        out = func(*args, **(kwargs or {}))
        depth = 1 + max((depth_of(leaf) for leaf in tree_leaves((args, kwargs))), default=0)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                leaf.__dict__["depth"] = depth
        return out


def depth_of(value: Any) -> int:
    return value.__dict__.get("depth", 0) if isinstance(value, Tensor) else 0


def image_channels(model: nn.Module) -> int:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise UserError("cannot tell how many channels the images have, because the model has no Conv2d: pass example_input")


def probe(model: nn.Module, example_input: Tensor | None = None) -> Probe:
    """Run `model` on meta tensors of two sizes and record what each module returns.

    A forward that fails late, say in a classifier made for one image size, still tells about the modules before.

    Args:
        model: The host. Its parameters, buffers and modes are left as they are.
        example_input: Images (N, C, H, W) that fit the model; the second size is made from it. Default: sizes of our own, and the channels
            of the first convolution.
    """
    sizes, channels = PROBE_SIZES, None
    if example_input is not None:
        if not isinstance(example_input, Tensor) or example_input.dim() != 4:
            given = f"the shape {tuple(example_input.shape)}" if isinstance(example_input, Tensor) else type(example_input).__name__
            raise UserError(f"example_input must be images (N, C, H, W); got {given}")
        channels, height, width = example_input.shape[1:]
        sizes = ((height, width), (height + 32, width + 96))
    channels = channels or image_channels(model)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    paths = {module: path for path, module in model.named_modules()}
    visits: dict[str, Visit] = {}
    failure = ""
    images = [torch.empty(2, channels, height, width, device="meta", dtype=dtype) for height, width in sizes]
    for index, batch in enumerate(images):

        def record(module: nn.Module, _: Any, output: Any, index: int = index) -> None:
            if (path := paths.get(module)) is not None:
                visit = visits.setdefault(path, Visit(order=len(visits)))
                visit.outputs[index].append(tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__)
                visit.depth = max(visit.depth, depth_of(output))

        handle = register_module_forward_hook(record)
        try:
            with (depths := Depths()):
                call_on_meta(model, batch)
        except Exception as error:  # A host may fail in any way; what it did before still counts.
            failure = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        finally:
            handle.remove()
    return Probe(visits, sizes, failure, images[0], depths.rescales)


class Bystander(nn.Module):
    """A child that is there and must not be called."""

    def __init__(self, path: str, place: nn.Module) -> None:
        super().__init__()
        self.message = f"cannot insert at {path!r}: {type(place).__name__} calls every module that it holds, and would call the block, too"

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise UserError(self.message)


def refuse_collectors(model: nn.Module, places: Mapping[str, nn.Module], images: Tensor) -> None:
    """Refuse places that run whatever they hold, as a container that goes through its children does: a block would run inside them, too.

    Raises:
        UserError: If a child that is new in one of `places` is called.
    """
    if not places:
        return
    for path, place in places.items():
        place.add_module("attention", Bystander(path, place))
    try:
        call_on_meta(model, images)
    except UserError:
        raise
    except Exception:  # The host fails late, as it did when it was probed.
        return
    finally:
        for place in places.values():
            del place.attention

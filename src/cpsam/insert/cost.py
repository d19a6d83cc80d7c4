"""Compares what blocks cost in a network: parameters, MACs, memory and latency, side by side."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from cpsam.attention import ATTENTION
from cpsam.attention.by_name import missing_arguments
from cpsam.errors import UserError
from cpsam.insert.hook import blocks_at, places
from cpsam.insert.inputs import Example, Inputs, inputs_of, is_image
from cpsam.insert.make import Block, name_of
from cpsam.insert.probe import probe
from cpsam.insert.surgery import insert_attention
from cpsam.insert.theoretical_field import fields_or_note
from cpsam.measure import Latency, count_macs, count_parameters, measure_latency, saved_bytes
from cpsam.report.field import TheoreticalFields
from cpsam.report.table import Table
from cpsam.report.values import count

HOST = "bare network"


@dataclass(frozen=True)
class BlockCost:
    """What a block adds to a network at all its places, or what the bare network itself costs.

    Attributes:
        name: The block, or ``"bare network"``.
        places: Where it is inserted; empty for the bare network.
        parameters: Number of parameters.
        macs: Multiply-accumulates per image.
        saved_bytes: Bytes per image that training saves for the backward pass; None for the bare
            network.
        latency: Of a forward of the batch in evaluation, in milliseconds.
    """

    name: str
    places: tuple[str, ...]
    parameters: int
    macs: int
    saved_bytes: int | None
    latency: Latency


@dataclass(frozen=True)
class CostTable:
    """The costs of blocks in one network. It prints, and shows in a notebook, as a table.

    Attributes:
        host: The network without the blocks.
        blocks: One entry per block.
        batch_size: Images in the batch of the latencies.
        receptive_fields: What the bare network sees at the places.
    """

    host: BlockCost
    blocks: tuple[BlockCost, ...]
    batch_size: int
    receptive_fields: TheoreticalFields

    def to_json(self) -> dict[str, Any]:
        """Returns plain data. Whatever differs between two calls is under ``timing``."""
        rows = [asdict(row) for row in (self.host, *self.blocks)]
        timing = {row["name"]: row.pop("latency") for row in rows}
        return {
            "schema": 1,
            "batch_size": self.batch_size,
            "costs": rows,
            "receptive_fields": asdict(self.receptive_fields),
            "timing": timing,
        }

    def table(self) -> Table:
        """Returns the costs as text, one row per block."""
        header = ("block", "places", "parameters", "MACs", "MiB for backward", "ms per batch")
        caption = (
            "MACs, and the memory that training keeps for the backward pass, are per image."
            " Milliseconds are the median"
            f" (quartiles) of {self.host.latency.n} forwards of {self.batch_size} images in"
            " evaluation."
        )
        return Table(header, [cells(row) for row in (self.host, *self.blocks)], caption)

    def __repr__(self) -> str:
        lines = [self.table(), self.table().caption, *self.receptive_fields.sentences]
        return "\n".join(map(str, lines))

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def cells(row: BlockCost) -> tuple[str, ...]:
    saved = "" if row.saved_bytes is None else f"{row.saved_bytes / 2**20:,.2f}"
    latency = row.latency
    return (
        row.name,
        str(len(row.places) or ""),
        f"{row.parameters:,}",
        count(row.macs),
        saved,
        f"{latency.median:,.2f} ({latency.q1:,.2f} to {latency.q3:,.2f})",
    )


def cost(
    model: nn.Module,
    blocks: Iterable[Block] | Mapping[str, Block] | None = None,
    at: str | Sequence[str] = "before-last",
    *,
    image_size: int | tuple[int, int] | None = None,
    example_input: Example | None = None,
    batch_size: int = 8,
) -> CostTable:
    """Measures what blocks would cost in a network of your own; `model` stays as it is.

    Each block is inserted into a copy of the network. All latencies are measured in turn, so that
    they can be compared.

    Args:
        model: Any network that :func:`insert_attention` takes.
        blocks: Blocks as in :func:`insert_attention`, or a mapping from names to them. Default: all
            blocks whose arguments have defaults.
        at: Where, as in :func:`insert_attention`.
        image_size: Height and width of the images in pixels; one number for a square.
        example_input: A batch of images, instead of `image_size`. Several arguments are a tuple, or
            a dict by name.
        batch_size: Images in the batch, with `image_size`.

    Raises:
        UserError: If there is no input or two, the model cannot run on it, or an insertion is
            refused.

    Example:
        >>> from torchvision.models import resnet18
        >>> table = cost(resnet18(), ["cpsam", "non_local"], image_size=(32, 48), batch_size=2)
        >>> [(row.name, row.parameters) for row in table.blocks]
        [('cpsam', 99680), ('non_local', 692160)]
    """
    inputs = real_inputs(model, image_size, example_input, batch_size)
    images, _, height, width = inputs.images()[0].shape
    host = copy.deepcopy(model).eval()
    inserted = {
        name: blocks_in_copy(model, block, at, inputs) for name, block in named(blocks).items()
    }
    features = features_at(host, {path for found in inserted.values() for path in found}, *inputs)
    steps = {HOST: lambda: host(*inputs.args, **inputs.kwargs)}
    steps |= {name: all_of(found, features) for name, found in inserted.items()}
    with torch.inference_mode():
        times = measure_latency(steps, repeats=10, warmup=2)
    macs = count_macs(host, inputs.kwargs or inputs.args) // images
    return CostTable(
        BlockCost(HOST, (), count_parameters(host), macs, None, times[HOST]),
        tuple(
            BlockCost(
                name,
                tuple(found),
                sum(map(count_parameters, found.values())),
                sum(count_macs(block, features[at]) for at, block in found.items()) // images,
                sum(saved_bytes(block, features[at].clone()) for at, block in found.items())
                // images,
                times[name],
            )
            for name, found in inserted.items()
        ),
        images,
        fields_or_note(model, at, (height, width)),
    )


def real_inputs(
    model: nn.Module,
    image_size: int | tuple[int, int] | None,
    example_input: Example | None,
    batch_size: int,
) -> Inputs:
    """Returns what the forward takes, on the device of the model."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a torch.nn.Module, such as MyNet(); got {model!r}")
    if (image_size is None) == (example_input is None):
        raise UserError("cost needs either image_size=(H, W) or example_input")
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    like = next(model.parameters(), torch.empty(0))
    if image_size is not None:
        image = probe(model).images.images()[0]
        shape = (batch_size, image.shape[1], *image_size)
        return Inputs((torch.zeros(shape, dtype=image.dtype, device=like.device),), {})
    inputs_of(model, example_input)  # refuses what holds no images
    moved = tree_map_only(Tensor, lambda tensor: tensor.to(like.device), example_input)
    if is_image(moved):
        return Inputs((moved,), {})
    return Inputs((), dict(moved)) if isinstance(moved, Mapping) else Inputs(tuple(moved), {})


def named(blocks: Iterable[Block] | Mapping[str, Block] | None) -> dict[str, Block]:
    if isinstance(blocks, Mapping):
        return {str(name): block for name, block in blocks.items()}
    if blocks is None:
        blocks = [name for name in ATTENTION if not missing_arguments(name, {})]
    if isinstance(blocks, str) or callable(blocks):
        blocks = [blocks]
    found: dict[str, Block] = {}
    for block in blocks:
        name = block if isinstance(block, str) else name_of(block)
        if name in found:
            raise UserError(f"two blocks are named {name!r}: give a mapping from names to blocks")
        found[name] = block
    return found


def blocks_in_copy(
    model: nn.Module, block: Block, at: str | Sequence[str], inputs: Inputs
) -> dict[str, nn.Module]:
    """Returns what is inserted into a copy of a model, by place."""
    host = copy.deepcopy(model).eval()
    paths = insert_attention(host, block, at, example_input=inputs.kwargs or inputs.args)
    return {path: blocks_at(host.get_submodule(path))[-1] for path in paths}


def inserted_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the blocks of each place, by its path."""
    return {path: blocks_at(place) for path, place in places(model)}


def features_at(
    model: nn.Module, paths: Iterable[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Returns what the module at each path returns in a forward, before any block changes it.

    Raises:
        UserError: If the forward fails.
    """
    features: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        return lambda module, inputs, output: features.update({path: output.detach().clone()})

    handles = [
        model.get_submodule(path).register_forward_hook(keep(path), prepend=True) for path in paths
    ]
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{type(model).__name__} cannot run on this input: {reason}") from error
    finally:
        for handle in handles:
            handle.remove()
    return features


def all_of(blocks: Mapping[str, nn.Module], features: Mapping[str, Tensor]) -> Callable[[], None]:
    """Returns a step that runs the blocks of all places."""

    def step() -> None:
        for path, block in blocks.items():
            block(features[path])

    return step

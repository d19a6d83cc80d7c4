"""Measures what a block costs in a network: parameters, multiply-adds, saved bytes, latency."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from cpsam.config.task import Task
from cpsam.data import Dataset
from cpsam.errors import UserError
from cpsam.evaluate import autocast
from cpsam.insert.cost import features_at, inserted_blocks
from cpsam.insert.hook import places
from cpsam.measure import (
    count_macs,
    count_parameters,
    forward_step,
    measure_latency,
    peak_memory_bytes,
    saved_bytes,
)
from cpsam.run.arm import BARE, check_complete, parse_arm
from cpsam.run.build import Host
from cpsam.run.field import fields_of
from cpsam.train.compute import Compute
from cpsam.typed import as_json

LATENCY_BATCH = 64
MEMORY_BATCH = 16
REPEATS = 20


@dataclass(frozen=True)
class Cost:
    """The cost of a network with an arm in it; MACs per image."""

    places: tuple[str, ...]
    widths: tuple[int, ...]
    parameters: int
    macs: int


def cost_of(model: nn.Module, input_shape: tuple[int, int, int], widths: Sequence[int]) -> Cost:
    """Returns parameters and MACs of a network on one image.

    Args:
        model: The network, with its blocks.
        input_shape: (C, H, W) of the image.
        widths: The channels at each place.
    """
    at = tuple(path for path, _ in places(model))
    macs = count_macs(model, (1, *input_shape))
    return Cost(at, tuple(widths), count_parameters(model), macs)


def latencies(
    models: Mapping[str, nn.Module], dataset: Dataset, compute: Compute
) -> dict[str, Any]:
    """Returns the milliseconds per evaluation batch of each model, measured in turn.

    Models compute as they were trained.
    """
    batch = torch.zeros(
        LATENCY_BATCH, dataset.in_channels, *dataset.image_size, device=compute.device
    )
    precision = torch.bfloat16 if compute.precision == "bfloat16" else None
    steps = {
        name: forward_step(
            model.to(compute.device), batch, autocast=precision, channels_last=compute.channels_last
        )
        for name, model in models.items()
    }
    return {
        name: asdict(latency) for name, latency in measure_latency(steps, repeats=REPEATS).items()
    }


def training_memory(model: nn.Module, dataset: Dataset, compute: Compute) -> int:
    """Returns the peak memory of a forward and backward pass of a small batch, in bytes."""
    model = model.to(compute.device).to(memory_format=compute.memory_format).train()
    batch = torch.zeros(
        MEMORY_BATCH, dataset.in_channels, *dataset.image_size, device=compute.device
    )
    batch = batch.contiguous(memory_format=compute.memory_format)

    def step() -> None:
        with autocast(compute.precision, batch.device):
            loss = model(batch).float().square().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)

    step()  # A first pass allocates what stays.
    return peak_memory_bytes(step, device=batch.device)


def insertion_cost(
    model: str,
    attention: str,
    at: Sequence[str],
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    batch_size: int,
) -> dict[str, Any]:
    """Returns the cost of an insertion, per place and in total, as plain data.

    Args:
        model: A name for :func:`cpsam.models.create_model`.
        attention: An arm, as in ``"cpsam:fusion=sum"``.
        at: Placements or path patterns.
        image_shape: (C, H, W) of an image.
        num_classes: Width of the classifier.
        batch_size: Images in the batch that latency and saved bytes are for.

    Returns:
        For each place its features (C, H, W), the parameters and MACs that the block adds there,
        and the bytes it saves for the backward pass; the same in total and for the network without;
        what the network without sees at the places; latencies in milliseconds under ``timing``.

    Raises:
        UserError: If a name is unknown or the insertion is refused.
    """
    arm = parse_arm(attention)
    if arm.attention == "none":
        raise UserError("attention 'none' inserts nothing; name a block")
    network = Host(Task(model=model, at=tuple(at)), num_classes, image_shape[0])
    with_blocks = network.build(check_complete(arm), seed=0).eval()
    host = network.build(BARE, seed=0).eval()
    batch = torch.zeros(batch_size, *image_shape)
    blocks = inserted_blocks(with_blocks)
    features = features_at(with_blocks, blocks, (batch,), {})
    steps = {"host": forward_step(host, batch)} | {
        path: forward_step(block, features[path]) for path, block in blocks.items()
    }
    times = {
        name: asdict(latency)
        for name, latency in measure_latency(steps, repeats=10, warmup=2).items()
    }
    places = [
        {
            "at": path,
            "features": list(features[path].shape[1:]),
            "parameters": count_parameters(block),
            "macs": count_macs(block, (1, *features[path].shape[1:])),
            "saved_bytes": saved_bytes(block, features[path].clone()),
        }
        for path, block in blocks.items()
    ]
    return {
        "schema": 1,
        "model": model,
        "attention": arm.name,
        "at": list(at),
        "image_shape": list(image_shape),
        "batch_size": batch_size,
        "places": places,
        "receptive_fields": as_json(fields_of(network, image_shape)),
        "total": {
            key: sum(place[key] for place in places)
            for key in ("parameters", "macs", "saved_bytes")
        },
        "host": {"parameters": count_parameters(host), "macs": count_macs(host, (1, *image_shape))},
        "timing": {"host": times.pop("host"), "places": times},
    }

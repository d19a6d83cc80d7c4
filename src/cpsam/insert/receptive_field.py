"""Measures what part of an image each place of a network sees."""

import copy
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cpsam.errors import UserError
from cpsam.insert.field_table import HELD, PlaceField, ReceptiveFields
from cpsam.insert.probe import probe
from cpsam.insert.refusals import check_host
from cpsam.insert.surgery import remove_attention
from cpsam.insert.theoretical_field import extents_of, features_of, places_of, theoretical_field
from cpsam.report.field import TheoreticalField

RANDOM_IMAGES = 8


def receptive_field(
    model: nn.Module,
    at: str | Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    images: Tensor | None = None,
) -> ReceptiveFields:
    """Measures what part of an image each place of a network sees; `model` stays as it is.

    The theoretical field is the bounding box of all pixels that can change the centre position. It
    is measured in a copy in which no gradient can vanish: equal positive weights, activations and
    norms as the identity. The effective field (Luo et al. 2016, arXiv:1701.04128) is measured in
    the network with its own weights. Blocks that are inserted are left out.

    Args:
        model: A network that takes one batch of images.
        at: Where, as in :func:`insert_attention`. Default: the last block of each stage.
        image_size: Height and width of the images in pixels; one number for a square. Default: that
            of `images`.
        images: A batch (N, C, H, W) for the effective field. Default: 8 random ones.

    Raises:
        UserError: If there is no image size, a place does not fit, or the model does not run.

    Example:
        >>> layers = [nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3, dilation=2)]
        >>> fields = receptive_field(nn.Sequential(*layers), at=["0", "2"], image_size=64)
        >>> [(place.at, place.theoretical, place.remote) for place in fields.places]
        [('0', (3, 3), True), ('2', (11, 11), True)]
    """
    check_host(model)
    size = size_of(image_size, images)
    host = copy.deepcopy(model)
    remove_attention(host)
    host.eval().requires_grad_(False)
    seen = probe(host)
    paths = places_of(host, at, seen)
    like = next(host.parameters(), torch.empty(0))
    if images is None:
        draw = torch.Generator().manual_seed(0)
        channels = seen.images.images()[0].shape[1]
        images = torch.randn(RANDOM_IMAGES, channels, *size, generator=draw)
    images = images.detach().to(like.device, like.dtype)
    effective = effective_fields(host, paths, images)
    places = tuple(
        place_field(theoretical_field(path, each, size), seen.stride(path), effective[path], size)
        for path, each in extents_of(host, paths, seen).items()
    )
    return ReceptiveFields(image_size=size, places=places, image_count=len(images))


def size_of(image_size: int | tuple[int, int] | None, images: Tensor | None) -> tuple[int, int]:
    if images is not None and (not isinstance(images, Tensor) or images.dim() != 4):
        raise UserError("images must be a batch (N, C, H, W)")
    if image_size is None and images is None:
        raise UserError("receptive_field needs either image_size=(H, W) or images")
    own = (0, 0) if images is None else tuple(images.shape[2:])
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size or own
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"image_size must be two positive numbers of pixels; got {image_size!r}")
    if images is not None and tuple(sides) != own:
        raise UserError(f"image_size is {tuple(sides)}, but the images are {own}")
    return sides[0], sides[1]


def place_field(
    field: TheoreticalField, stride: int, sides: Sequence[float], size: tuple[int, int]
) -> PlaceField:
    mean = statistics.fmean(sides) if sides else None
    return PlaceField(
        **vars(field),
        stride=stride,
        theoretical_fraction=covered(field.theoretical or size, size),
        effective=mean,
        effective_spread=statistics.stdev(sides) if len(sides) > 1 else 0.0,
        effective_fraction=None if mean is None else covered((mean, mean), size),
    )


def covered(field: tuple[float, float], size: tuple[int, int]) -> float:
    height, width = (min(one, side) / side for one, side in zip(field, size, strict=True))
    return height * width


def effective_fields(
    host: nn.Module, paths: Sequence[str], images: Tensor
) -> dict[str, list[float]]:
    """Returns the sides of the squares that hold 95 % of the squared gradient, per image."""
    draw = torch.Generator().manual_seed(0)
    fields: dict[str, list[float]] = {path: [] for path in paths}
    for image in images:
        leaf = image[None].clone().requires_grad_(True)
        with torch.enable_grad():
            features = features_of(host, paths, leaf)
        for path, output in features.items():
            centre = output[0, :, output.shape[2] // 2, output.shape[3] // 2]
            # Random signs: the expected square is the sum over the channels, without cancellation.
            signs = torch.randint(0, 2, centre.shape, generator=draw).to(centre) * 2 - 1
            (gradient,) = torch.autograd.grad(centre @ signs, leaf, retain_graph=True)
            energy = gradient[0].double().square().sum(0)
            if bool(torch.isfinite(energy).all()) and float(energy.sum()) > 0:
                fields[path].append(side_of(energy))
    return fields


def side_of(energy: Tensor) -> int:
    """Returns the side of the square around the centre of mass that holds 95 % of the energy.

    Example:
        >>> energy = torch.zeros(9, 9)
        >>> energy[3:6, 3:6] = 1
        >>> side_of(energy)
        3
    """
    rows, columns = (torch.arange(length).to(energy) for length in energy.shape)
    energy = energy / energy.sum()
    # To the nearest half pixel, because a field may be even.
    row = (2 * energy.sum(1) @ rows).round() / 2
    column = (2 * energy.sum(0) @ columns).round() / 2
    distance = torch.maximum((rows - row).abs()[:, None], (columns - column).abs()[None])
    order = distance.flatten().argsort()
    inside = energy.flatten()[order].cumsum(0)
    last = int(torch.searchsorted(inside, torch.full_like(inside[:1], HELD)))
    radius = float(distance.flatten()[order[min(last, len(order) - 1)]])
    return min(round(2 * radius) + 1, max(energy.shape))

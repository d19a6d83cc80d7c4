"""Measures what part of an image each place of a network sees."""

import copy
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpsam.errors import UserError
from cpsam.insert.field_table import HELD, PlaceField, ReceptiveFields
from cpsam.insert.linear_trace import LinearTrace, make_positive
from cpsam.insert.placement import resolve
from cpsam.insert.probe import Probe, probe
from cpsam.insert.refusals import check_host
from cpsam.insert.surgery import remove_attention
from cpsam.insert.trunk import Trunk
from cpsam.torch_state import without_hooks

RANDOM_IMAGES = 8
# Long sides and short sides of the images that the theoretical field is measured in.
LENGTHS = (256, 512, 1024, 2048, 4096)
BREADTHS = (32, 256)
# A position that sees this far in one direction sees everything.
FAR = 2048


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
        >>> receptive_field(nn.Sequential(*layers), at=["0", "2"], image_size=64).sentence
        'in the 64x64 image some positions are remote at 0 (3 px), 2 (11 px)'
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
    make_positive(host)
    heights, widths = (extents(host, paths, images.shape[1], axis) for axis in (0, 1))
    return ReceptiveFields(
        tuple(
            summary(path, seen.stride(path), heights[path], widths[path], effective[path], size)
            for path in paths
        ),
        size,
        len(images),
    )


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


def places_of(host: nn.Module, at: str | Sequence[str] | None, seen: Probe) -> list[str]:
    """Returns the paths of the places, which each return (N, C, H, W) once per forward."""
    try:
        if at is None:
            paths = [stage.blocks[-1] for stage in Trunk(host, seen).stages]
        else:
            paths = resolve(host, at, seen)
        for path in paths:
            seen.channels(path)
    except UserError as error:
        text = str(error).replace("cannot insert at", "no receptive field at")
        text = text.replace("; pass example_input if it needs other inputs", "")
        raise UserError(text) from error
    return paths


def summary(
    path: str,
    stride: int,
    height: int | None,
    width: int | None,
    sides: Sequence[float],
    size: tuple[int, int],
) -> PlaceField:
    # A field that is global along one axis alone is as high or as wide as the image there.
    theoretical = None
    if height is not None or width is not None:
        theoretical = (height or size[0], width or size[1])
    mean = statistics.fmean(sides) if sides else None
    return PlaceField(
        path,
        stride,
        theoretical,
        covered(theoretical or size, size),
        mean,
        statistics.stdev(sides) if len(sides) > 1 else 0.0,
        None if mean is None else covered((mean, mean), size),
        any(
            field is not None and field < 2 * side - 1
            for field, side in zip((height, width), size, strict=True)
        ),
    )


def covered(field: tuple[float, float], size: tuple[int, int]) -> float:
    height, width = (min(one, side) / side for one, side in zip(field, size, strict=True))
    return height * width


class AllSeen(Exception):
    """Ends a forward when every place has returned."""


def features_of(host: nn.Module, paths: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Returns what each place returns, with its graph.

    Raises:
        UserError: If the forward fails before.
    """
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            found[path] = output * 1  # What follows may change the output in place.
            if len(found) == len(paths):
                raise AllSeen

        return hook

    with without_hooks(host):
        handles = [host.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
        try:
            host(images * 1)  # A network may change its images in place.
        except AllSeen:
            pass
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            size = "x".join(map(str, images.shape[2:]))
            raise UserError(
                f"{type(host).__name__} cannot run on {size} images: {reason}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
    return found


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
    row = (energy.sum(1) @ rows).round()
    column = (energy.sum(0) @ columns).round()
    distance = torch.maximum((rows - row).abs()[:, None], (columns - column).abs()[None])
    order = distance.flatten().argsort()
    inside = energy.flatten()[order].cumsum(0)
    last = int(torch.searchsorted(inside, torch.full_like(inside[:1], HELD)))
    radius = int(distance.flatten()[order[min(last, len(order) - 1)]])
    return min(2 * radius + 1, max(energy.shape))


def extents(
    host: nn.Module, paths: Sequence[str], channels: int, axis: int
) -> dict[str, int | None]:
    """Returns the extent of each field along an axis in pixels; None where it is global.

    The image is long along this axis, and becomes longer until no field is clipped.

    Args:
        host: With positive weights.
        paths: The places.
        channels: Of the images.
        axis: 0 for the height, 1 for the width.
    """
    found: dict[str, int | None] = {}
    for length in LENGTHS:
        left = [path for path in paths if path not in found]
        if not left:
            break
        image, features = trace(host, left, channels, length, axis)
        for path, output in features.items():
            low, high = reach(output, image, axis, output.shape[2 + axis] // 2)
            if low > 0 and high < length - 1:
                found[path] = high - low + 1
            elif length >= FAR and reach(output, image, axis, 0)[1] >= length - 1:
                found[path] = None
    return {path: found.get(path) for path in paths}


def trace(
    host: nn.Module, paths: Sequence[str], channels: int, length: int, axis: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns an image that is long along an axis, and what each place returns for it."""
    like = next(host.parameters(), torch.empty(0, dtype=torch.float64))
    for breadth in BREADTHS:
        size = (length, breadth) if axis == 0 else (breadth, length)
        image = torch.ones(1, channels, *size, dtype=like.dtype, device=like.device)
        image.requires_grad_(True)
        try:
            with torch.enable_grad(), LinearTrace():
                return image, features_of(host, paths, image)
        except UserError:
            if breadth == BREADTHS[-1]:
                raise
    raise AssertionError("unreachable")


def reach(output: Tensor, image: Tensor, axis: int, position: int) -> tuple[int, int]:
    """Returns the first and last pixel along an axis that `position` depends on."""
    across = output.shape[3 - axis] // 2
    at = (position, across) if axis == 0 else (across, position)
    seen = output[0, :, at[0], at[1]].sum()
    (gradient,) = torch.autograd.grad(seen, image, retain_graph=True)
    used = (gradient[0] != 0).any(0).any(1 - axis).nonzero().flatten()
    if len(used) == 0:
        raise UserError("no pixel of the image reaches this place")
    return int(used[0]), int(used[-1])

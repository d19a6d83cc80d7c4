"""Measures which pixels of an image can change a position, for each place of a network."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpsam.errors import UserError
from cpsam.insert.linear_trace import LinearTrace, make_positive
from cpsam.insert.placement import resolve
from cpsam.insert.probe import Probe, probe
from cpsam.insert.surgery import remove_attention
from cpsam.insert.trunk import Trunk
from cpsam.report.field import TheoreticalField, TheoreticalFields
from cpsam.torch_state import without_hooks

# Long sides and short sides of the images that the theoretical field is measured in.
LENGTHS = (256, 512, 1024, 2048, 4096)
BREADTHS = (32, 256)
# A position that sees this far in one direction sees everything.
FAR = 2048

Extents = tuple[int | None, int | None]  # None: global


def theoretical_fields(
    model: nn.Module, at: str | Sequence[str] | None, image_size: tuple[int, int]
) -> TheoreticalFields:
    """Returns the theoretical receptive fields of a network; it stays as it is.

    Blocks that are inserted are left out.

    Args:
        model: A network that takes one batch of images.
        at: Where, as in :func:`insert_attention`. None: the last block of each stage.
        image_size: Height and width of the images in pixels.

    Raises:
        UserError: If a place does not fit, or the model does not run.
    """
    host = copy.deepcopy(model)
    remove_attention(host)
    seen = probe(host)
    extents = extents_of(host, places_of(host, at, seen), seen)
    return TheoreticalFields(
        image_size=image_size,
        places=tuple(theoretical_field(path, each, image_size) for path, each in extents.items()),
    )


def fields_or_note(
    model: nn.Module, at: str | Sequence[str], image_size: tuple[int, int]
) -> TheoreticalFields:
    """Returns the theoretical receptive fields; a note where they cannot be measured.

    It serves those for whom the fields are a remark beside something else.
    """
    try:
        return theoretical_fields(model, at, image_size)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        note = f"The receptive field was not measured: {reason.rstrip('.')}."
        return TheoreticalFields(image_size=image_size, note=note)


def theoretical_field(path: str, extents: Extents, size: tuple[int, int]) -> TheoreticalField:
    """Returns the field of a place in images of this size.

    A field that is global along one axis alone is as high or as wide as the image there.
    """
    height, width = extents
    whole = height is None and width is None
    # Half the field of a position in one corner must span the image.
    remote = any(
        extent is not None and extent < 2 * side - 1
        for extent, side in zip(extents, size, strict=True)
    )
    theoretical = None if whole else (height or size[0], width or size[1])
    return TheoreticalField(at=path, theoretical=theoretical, remote=remote)


def extents_of(host: nn.Module, paths: Sequence[str], seen: Probe) -> dict[str, Extents]:
    """Returns the height and the width of each field; changes the weights of the network."""
    make_positive(host)
    channels = seen.images.images()[0].shape[1]
    heights, widths = (extents(host, paths, channels, axis) for axis in (0, 1))
    return {path: (heights[path], widths[path]) for path in paths}


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
    spanning: set[str] = set()  # global, or larger than twice the image
    for length in LENGTHS:
        left = [path for path in paths if path not in found]
        left = [path for path in left if length >= FAR or path not in spanning]
        if not left:
            continue
        image, features = trace(host, left, channels, length, axis)
        for path, output in features.items():
            low, high = reach(output, image, axis, output.shape[2 + axis] // 2)
            if low > 0 and high < length - 1:
                found[path] = high - low + 1
            elif reach(output, image, axis, 0)[1] >= length - 1:
                spanning.add(path)
                if length >= FAR:
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

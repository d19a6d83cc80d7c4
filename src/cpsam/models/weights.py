"""Loads pretrained weights; only the classifier and inserted blocks may be missing from them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cpsam.errors import DataError, UserError
from cpsam.files import open_regular
from cpsam.insert.hook import host_modules, places
from cpsam.models.run_weights import check_blocks, check_run, find_file
from cpsam.models.state_choice import Candidate, Wanted, choose, listed, plural
from cpsam.models.state_file import read_content


class MisfitError(UserError):
    """The weights are those of another network."""

    def __init__(self, message: str, shapes: Mapping[str, torch.Size]) -> None:
        super().__init__(message)
        self.shapes = shapes


def with_new_blocks(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Returns `state`, with the blocks of `model` as they are if the state has none of them.

    So the weights of the bare host fit strictly.
    """
    blocks = tuple(f"{path}.attention." for path, _ in places(model))
    if any(key.startswith(blocks) for key in state):
        return state
    return state | {
        key: tensor for key, tensor in model.state_dict().items() if key.startswith(blocks)
    }


def classifiers(model: nn.Module, num_classes: int) -> list[str]:
    """Returns the paths of the classifiers: those that timm names, or the last layer that fits.

    That is the last layer with as many outputs as there are classes.
    """
    modules = {
        path: module
        for path, module in host_modules(model)
        if isinstance(getattr(module, "weight", None), Tensor)
    }
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    paths = [path for path in ((named,) if isinstance(named, str) else named) if path in modules]
    wide = [path for path, module in modules.items() if num_classes in (outputs(module),)]
    return paths or wide[-1:]


def outputs(module: nn.Module) -> int | None:
    return (
        module.out_features
        if isinstance(module, nn.Linear)
        else module.out_channels
        if isinstance(module, nn.Conv2d)
        else None
    )


def load_pretrained(
    model: nn.Module, path: Path | str, num_classes: int, *, key: str | None = None
) -> list[str]:
    """Loads a file of weights into `model`, in place.

    Args:
        model: A network, bare, or with blocks that start as they are if the file has none of them.
        path: The file: safetensors, or one of torch, of which only tensors are read; or the folder
            of a finished run.
        num_classes: Width of the model's classifier. One for another number of classes in the file
            is left out.
        key: Which tensors to take where a file holds several that fit: a name in the file, as
            ``state_dict_ema``, or a prefix of keys, as ``encoder_q``. None: the average of the
            weights, if the file has one.

    Returns:
        What was decided, a line each: which tensors were taken, what was left out, and what starts
        anew.

    Raises:
        DataError: If the file is missing or damaged, is something else than weights, or holds a
            number that is not finite.
        UserError: If it asks for code, a key or a shape does not fit, or several weights fit and
            `key` does not say which.
    """
    path = find_file(Path(path))
    content = read_content(path)
    own = model.state_dict()
    wanted = Wanted(
        own, classifiers(model, num_classes), [f"{place}.attention" for place, _ in places(model)]
    )
    check_run(path, content.metadata)
    check_blocks(path, content.metadata, model)
    chosen, notes = choose(path, content, wanted, key)
    if not chosen.fits:
        raise misfit(path, chosen, own)
    tensors = {
        name: converted(path, name, tensor, own[name]) for name, tensor in chosen.found.items()
    }
    model.load_state_dict(tensors, strict=False)
    return [*content.notes, *notes, *decisions(chosen, content.skipped)]


def hash_weights(path: Path | str) -> str:
    """Returns the SHA-256 of a file of weights, or of the one in a folder.

    Raises:
        DataError: If it is missing, is not a regular file, or cannot be read.
    """
    path = find_file(Path(path))
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # pyrefly: ignore
    except FileNotFoundError as error:
        raise DataError(f"weights file not found: {path}") from error
    except OSError as error:
        raise DataError(f"weights file cannot be read: {path} ({error.strerror})") from error


def misfit(path: Path, chosen: Candidate, own: Mapping[str, Tensor]) -> MisfitError:
    """Says in one line why the nearest candidate does not fit."""
    reasons = []
    if chosen.lacking:
        reasons.append(f"it lacks {plural(len(chosen.lacking), 'key')} ({listed(chosen.lacking)})")
    if chosen.unknown:
        reasons.append(
            f"has {plural(len(chosen.unknown), 'key')} that the model has not"
            f" ({listed(chosen.unknown)})"
        )
    if chosen.misshapen:
        shapes = [
            f"{name}: {tuple(chosen.found[name].shape)} for {tuple(own[name].shape)}"
            for name in chosen.misshapen
        ]
        reasons.append(f"has {plural(len(shapes), 'key')} in another shape ({listed(shapes)})")
    if (
        not chosen.lacking
        and not chosen.unknown
        and (channels := input_channels(chosen, own)) is not None
    ):
        reasons = [
            f"they take images of {plural(channels[0], 'channel')}, and the model takes"
            f" {channels[1]}"
        ]
    inside = f" at {chosen.label}" if chosen.label else ""
    return MisfitError(
        f"weights {path}{inside} do not fit the model: {', '.join(reasons)}", chosen.shapes
    )


def input_channels(chosen: Candidate, own: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Returns the image channels of the file and of the model, if only the first layer differs."""
    if len(chosen.misshapen) != 1:
        return None
    given, wanted = chosen.found[chosen.misshapen[0]].shape, own[chosen.misshapen[0]].shape
    same = len(given) == 4 and given[:1] + given[2:] == wanted[:1] + wanted[2:]
    return (given[1], wanted[1]) if same else None


def converted(path: Path, name: str, tensor: Tensor, like: Tensor) -> Tensor:
    """Returns the tensor in the type of the model.

    Raises:
        DataError: If it is sparse, quantised, without data or of another kind of number, or holds a
            number that is not finite.
    """
    kind = f"{tensor.dtype}".removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        raise DataError(
            f"weights file {path}: {name} must be a plain tensor; it is quantised, sparse or"
            " without data"
        )
    # Some trainers store it as a floating-point number.
    counts = name.endswith("num_batches_tracked")
    if (
        not counts and tensor.is_floating_point() != like.is_floating_point()
    ) or tensor.is_complex() != like.is_complex():
        raise DataError(
            f"weights file {path}: {name} holds {kind} numbers, and the model has "
            f"{str(like.dtype).removeprefix('torch.')}"
        )
    tensor = tensor.detach()
    tensor = tensor if counts else tensor.to(like.dtype)
    if not (finite := tensor.isfinite()).all():
        raise DataError(
            f"weights file {path}: {name} holds {int((~finite).sum())} of {tensor.numel()} numbers"
            " that are not finite"
        )
    if name.endswith(("running_var", "num_batches_tracked")) and (
        negative := int((tensor < 0).sum())
    ):
        raise DataError(
            f"weights file {path}: {name} must not be negative; {negative} of its {tensor.numel()}"
            " numbers are"
        )
    return tensor


def decisions(chosen: Candidate, skipped: tuple[str, ...]) -> list[str]:
    """Returns one line for each decision about the weights."""
    notes = []
    if chosen.where or chosen.prefix:
        notes.append(f"the tensors are those at {chosen.label}")
    for head, why in chosen.new_heads.items():
        notes.append(f"classifier {head} starts anew: {why}")
    if chosen.new_blocks:
        notes.append("the blocks start anew: the file has none")
    if chosen.others:
        notes.append(f"left out: {plural(len(chosen.others), 'key')} ({listed(chosen.others)})")
    types = sorted(
        {
            f"{tensor.dtype}".removeprefix("torch.")
            for tensor in chosen.found.values()
            if tensor.is_floating_point()
        }
    )
    if types != ["float32"] and types:
        notes.append(f"the tensors are stored as {', '.join(types)}")
    if skipped:
        notes.append(
            f"not built: objects of {listed(skipped)}, which the file has beside the tensors"
        )
    return notes

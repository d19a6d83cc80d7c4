"""Insert attention into a model and take it out again, without renaming one of its weights."""

import copy
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cpsam.attention import ATTENTION, argument_names, block_arguments
from cpsam.errors import UserError, unknown
from cpsam.insert.hook import (
    AttentionBlocks,
    blocks_at,
    hang,
    host_modules,
    is_hooked,
    is_place,
    places,
    unhang,
)
from cpsam.insert.placement import resolve
from cpsam.insert.probe import probe, refuse_collectors
from cpsam.insert.slots import forget_slots, keep_in_slots
from cpsam.torch_state import without_hooks

Make = str | Callable[[int], nn.Module]
Example = Tensor | Sequence[Any] | Mapping[str, Any]

# By name, because importing those that shard takes longer than an insertion.
WRAPPERS = frozenset(
    {"DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}
)


def check_host(model: nn.Module) -> None:
    """Refuse a model in which a hook that is added now would not run, or not be seen."""
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
    """Warns of a host that a trainer builds anew from its description, as ultralytics does, and so
    without attention.
    """
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


def maker(make: Make) -> Callable[[int], nn.Module]:
    if not isinstance(make, str):
        if isinstance(make, nn.Module) or not callable(make):
            raise UserError(
                "make must be a name or a callable from the number of channels to a module; got"
                f" {type(make).__name__}"
            )
        return make
    if make not in ATTENTION:
        raise unknown("attention", make, ATTENTION)
    return ATTENTION[make]


def build(make: partial[nn.Module], what: str, like: nn.Module, model: nn.Module) -> nn.Module:
    """Returns one block on the device, in the precision and in the mode of the place it goes to."""
    try:
        block = make()
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} cannot be made: {why_not_made(make, error)}") from error
    if not isinstance(block, nn.Module):
        raise UserError(f"make must return a torch.nn.Module; got {type(block).__name__}")
    own = (p for source in (like, model) for p in source.parameters() if p.is_floating_point())
    if (parameter := next(own, None)) is not None:
        block.to(parameter.device, parameter.dtype)
    return block.train(like.training)


def why_not_made(make: partial[nn.Module], error: Exception) -> str:
    """Returns why a call failed, in one line: the argument that is missing or unknown, if that is
    why.
    """
    name = getattr(make.func, "__name__", type(make.func).__name__)
    try:
        inspect.signature(make.func).bind(*make.args, **make.keywords)
    except TypeError as mismatch:
        advice = (
            "; give it with functools.partial or a lambda"
            if make.args and "missing" in str(mismatch)
            else ""
        )
        return f"{name}: {mismatch}{advice}"
    except ValueError:  # It has no signature.
        pass
    return str(error).partition("\n")[0]


def check_shape(block: nn.Module, channels: Any) -> None:
    """Refuses a block that does not return the shape it is given, at odd and even sizes, in
    training and in evaluation.

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
    """Refuse a block where its name is taken, or its class is there or about to be."""
    if not is_place(place) and hasattr(place, "attention"):
        raise UserError(
            f"cannot insert at {path!r}: {type(place).__name__} has an attribute 'attention' of its"
            " own; give the path of the module in it that returns its output"
        )
    present = [*blocks_at(place), *pending] if is_place(place) else pending
    if any(type(block) is type(other) for other in present):
        raise UserError(f"cannot insert at {path!r}: it has a {type(block).__name__} already")


def attach(model: nn.Module, path: str, block: nn.Module) -> None:
    """Lets `block` work on what the place at `path` returns, after the blocks that are there
    already.
    """
    place = model.get_submodule(path)
    if is_place(place):
        blocks_at(place).append(block)
    else:
        hang(AttentionBlocks(block).train(place.training), place)
        keep_in_slots(model.get_submodule(path.rpartition(".")[0]))


def forget_compiled_code() -> None:
    """What torch.compile made of a model elsewhere does not look for new hooks: without this it
    would go on without the block.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def insert_attention(
    model: nn.Module,
    make: Make,
    at: str | Sequence[str] = ("layer3.*",),
    example_input: Example | None = None,
) -> list[str]:
    """Insert a block after each place of a model, in place; what the place returns goes through the
    block.

    The model's state-dict keys do not change; the new ones are ``<place>.attention.<index>.*``.
    Later calls compose with earlier ones in order. On an error the model is left as it was.

    Args:
        model: Any network on images. It must call its places as modules, not through
            ``.forward()``.
        make: A name in ``ATTENTION``, or a callable from the number of channels to a module.
        at: Module paths, in which ``*`` is one segment (``"layer3.*"`` is its blocks, not their
            convolutions), or names of placements.
        example_input: Images (N, C, H, W) that the model takes, if it does not take any size or has
            no Conv2d. Several arguments are a tuple, or a dict by name.

    Returns:
        The paths of the modules that it touched, in the order of the model. A ``nn.Sequential``
        stands for its last element.

    Raises:
        UserError: If nothing matches, a place does not return one (N, C, H, W) tensor once a
            forward, calls every module that it holds, or has the same block already, or the model
            is compiled, scripted or wrapped for distribution.

    Example:
        >>> from torchvision.models import resnet18
        >>> model = resnet18()
        >>> insert_attention(model, "cpsam", at="layer3.*")
        ['layer3.0', 'layer3.1']
        >>> attention_config(model)[0]["attention"]
        'cpsam'
    """
    check_host(model)
    block_maker = maker(make)
    seen = probe(model, example_input)
    blocks = []
    for path in resolve(model, at, seen):
        place = model.get_submodule(path)
        channels = seen.channels(path)
        block = build(
            partial(block_maker, channels),
            f"the block from in_channels={channels} alone",
            place,
            model,
        )
        check_place(path, place, block)
        check_shape(block, channels)
        blocks.append((path, place, block))
    refuse_collectors(
        model,
        {path: place for path, place, _ in blocks if not is_place(place) and any(place.children())},
        seen.images,
    )
    warn_of_rebuilding(model)
    for path, _, block in blocks:
        attach(model, path, block)
    forget_compiled_code()
    return [path for path, _, _ in blocks]


def remove_attention(model: nn.Module) -> list[str]:
    """Take all inserted blocks out again, in place, and give the host back; returns the paths that
    had any.
    """
    found = places(model)
    for _, place in found:
        unhang(place)
    forget_slots(model)
    forget_compiled_code()
    return [path for path, _ in found]


def attention_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of the inserted blocks, to give them a learning rate of their own or to freeze
    the rest.

    Example:
        >>> from torchvision.models import resnet18
        >>> model = resnet18().requires_grad_(False)
        >>> _ = insert_attention(model, "cpsam")
        >>> for parameter in attention_parameters(model):
        ...     _ = parameter.requires_grad_(True)
    """
    for _, place in places(model):
        yield from blocks_at(place).parameters()


def attention_config(model: nn.Module) -> list[dict[str, Any]]:
    """What is inserted where, as plain data to store beside the weights: ``[{"at", "attention",
    "arguments"}, ...]``.

    A block that is not one of ours is named by its class, and must keep each constructor argument
    as an attribute of the same name.

    Raises:
        UserError: If it does not, or blocks are there that nothing calls.
    """
    names = {block: name for name, block in ATTENTION.items()}
    entries = []
    for path, place in places(model):
        # which torch.fx makes, whose graph calls the blocks itself
        if not is_hooked(place) and type(place) is not nn.Module:
            raise UserError(
                f"nothing calls the attention at {path!r}: a tool that made this module did not"
                " take over its hook"
            )
        for block in blocks_at(place):
            missing = [name for name in argument_names(type(block)) if not hasattr(block, name)]
            if missing:
                raise UserError(
                    f"{type(block).__name__} at {path!r} does not keep its argument {missing[0]!r}"
                    " as an attribute"
                )
            name = names.get(type(block), type(block).__name__)
            entries.append({"at": path, "attention": name, "arguments": block_arguments(block)})
    return entries


def insert_from_config(
    model: nn.Module,
    config: Sequence[Mapping[str, Any]],
    blocks: Mapping[str, type[nn.Module]] | None = None,
) -> list[str]:
    """Insert again what :func:`attention_config` says, without a probe; weights are loaded
    afterwards.

    Args:
        model: The host, as it was before the insertion.
        config: The stored entries. They name blocks; no code comes from them.
        blocks: Classes of other blocks by name.

    Raises:
        UserError: If an entry is malformed, names a block or a place that is not there, or makes a
            block that returns another shape.
    """
    check_host(model)
    if not isinstance(config, Sequence) or isinstance(config, str):
        raise UserError(f"the configuration must be a list of entries; got {type(config).__name__}")
    known = {**ATTENTION, **(blocks or {})}
    modules = {path: module for path, module in host_modules(model) if path}
    made: list[tuple[str, nn.Module, nn.Module]] = []
    for entry in config:
        if (
            not isinstance(entry, Mapping)
            or set(entry) != {"at", "attention", "arguments"}
            or not isinstance(entry["arguments"], Mapping)
        ):
            raise UserError(
                "an entry of the configuration has the keys at, attention, arguments; got"
                f" {entry!r}"
            )
        path, name = entry["at"], entry["attention"]
        if not isinstance(path, str) or not isinstance(name, str):
            raise UserError(f"at and attention of an entry are words; got {path!r} and {name!r}")
        if name not in known:
            raise unknown("attention", name, known)
        if path not in modules:
            raise UserError(
                f"the configuration inserts at {path!r}, which this model does not have"
            )
        block = build(
            partial(known[name], **entry["arguments"]),
            f"the {name!r} of the configuration at {path!r}",
            modules[path],
            model,
        )
        check_place(path, modules[path], block, [other for at, _, other in made if at == path])
        check_shape(block, entry["arguments"].get(next(iter(argument_names(known[name])), "")))
        made.append((path, modules[path], block))
    warn_of_rebuilding(model)
    for path, _, block in made:
        attach(model, path, block)
    forget_compiled_code()
    return list(dict.fromkeys(path for path, _, _ in made))

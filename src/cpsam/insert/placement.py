"""Finds where blocks go: by path patterns, and by named placements from a model's data flow."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import cache

from torch import nn

from cpsam.errors import UserError, unknown
from cpsam.insert.branches import Branches
from cpsam.insert.hook import host_modules
from cpsam.insert.probe import Probe
from cpsam.insert.trunk import Stage, Trunk, is_plain_sequential


def at_strides(trunk: Trunk, strides: Sequence[int]) -> list[Stage]:
    """Returns the stages at the strides that a placement is defined by."""
    if trunk.rescales:
        raise UserError(
            "needs output strides, and this model scales its images before: insert into its"
            " backbone alone"
        )
    have = {stage.stride for stage in trunk.stages}
    missing = [stride for stride in strides if stride not in have]
    if missing:
        raise UserError(
            f"needs blocks at output stride {', '.join(map(str, missing))}; "
            f"this model has blocks at stride {', '.join(map(str, sorted(have)))}"
        )
    return [stage for stage in trunk.stages if stage.stride in strides]


def several_stages(trunk: Trunk) -> list[Stage]:
    if len(trunk.stages) < 2:
        raise UserError(f"needs at least two stages of blocks; this model has {len(trunk.stages)}")
    return trunk.stages


def branch_ends(trunk: Trunk, stages: Sequence[Stage]) -> list[str]:
    branches = Branches(trunk)
    return [place for stage in stages for path in stage.blocks for place in branches.ends(path)]


def nl_c4_last(trunk: Trunk) -> list[str]:
    """Returns the last residual block of c4 (output stride 16)."""
    return [at_strides(trunk, [16])[-1].blocks[-1]]


def nl_every_second_c3_c4(trunk: Trunk) -> list[str]:
    """Returns every second residual block of c3 and c4 (output strides 8 and 16)."""
    return [path for stage in at_strides(trunk, [8, 16]) for path in stage.blocks[1::2]]


def gc_c3_c5(trunk: Trunk) -> list[str]:
    """Returns the branch ends in all residual blocks of c3, c4 and c5 (strides 8, 16, 32)."""
    return branch_ends(trunk, at_strides(trunk, [8, 16, 32]))


def before_last(trunk: Trunk) -> list[str]:
    """Returns the place right before the last residual block of each stage but the first."""
    stages = several_stages(trunk)
    order = [path for stage in stages for path in stage.blocks]
    return [order[order.index(stage.blocks[-1]) - 1] for stage in stages[1:]]


def stage_ends(trunk: Trunk) -> list[str]:
    """Returns the last block of each stage but the first.

    After the last stage only pooling and the classifier follow. So a block there is a part of the
    classifier, and conclusions about attention are not possible.
    """
    return [stage.blocks[-1] for stage in several_stages(trunk)[1:]]


def early(trunk: Trunk) -> list[str]:
    """Returns the last block of the first two stages."""
    return [stage.blocks[-1] for stage in several_stages(trunk)[:2]]


def every_branch(trunk: Trunk) -> list[str]:
    """Returns the branch ends in all residual blocks, before the addition; the placement of SE."""
    return branch_ends(trunk, trunk.stages)


PLACEMENTS: dict[str, Callable[[Trunk], list[str]]] = {
    "before-last": before_last,
    "stage-ends": stage_ends,
    "early": early,
    "every-branch": every_branch,
    "nl-c4-last": nl_c4_last,
    "nl-every-second-c3-c4": nl_every_second_c3_c4,
    "gc-c3-c5": gc_c3_c5,
}


def named_places(name: str, trunk: Callable[[], Trunk]) -> list[str]:
    """Returns the module paths that the placement `name` means.

    Raises:
        UserError: If the model has no such place, with the reason.
    """
    try:
        places = PLACEMENTS[name](trunk())
    except UserError as error:
        raise UserError(f"placement {name!r} {error}") from error
    if not places:
        raise UserError(
            f"placement {name!r} finds no place, because the stages that it means have one block"
            " each"
        )
    return places


def matches(pattern: str, path: str) -> bool:
    """Returns whether `path` fits `pattern`, in which ``*`` stands for one segment.

    Example:
        >>> matches("layer3.*", "layer3.0"), matches("layer3.*", "layer3.0.conv1")
        (True, False)
    """
    wanted, given = pattern.split("."), path.split(".")
    return len(wanted) == len(given) and all(map(fnmatchcase, given, wanted))


def last_element(model: nn.Module, path: str) -> str:
    """Returns the path of the last module in a plain ``nn.Sequential``.

    That module returns the same, and a scripted model calls the hook of a Sequential twice.
    """
    while isinstance(module := model.get_submodule(path), nn.Sequential) and is_plain_sequential(
        module
    ):
        if len(module) == 0:
            raise UserError(f"cannot insert at {path!r}: it is an empty Sequential")
        path = f"{path}.{list(module._modules)[-1]}"
    return path


def resolve(model: nn.Module, at: str | Sequence[str], probe: Probe) -> list[str]:
    """Returns the module paths for placement names and path patterns, each once, in model order.

    Raises:
        UserError: If a name or pattern finds nothing. The message lists what there is.
    """
    wanted = [at] if isinstance(at, str) else list(at)
    if not wanted:
        raise UserError("no place to insert at: `at` is empty")
    names = [path for path, _ in host_modules(model) if path]
    trunk = cache(lambda: Trunk(model, probe))
    found: set[str] = set()
    for pattern in wanted:
        if pattern.lower() in PLACEMENTS:
            paths = named_places(pattern.lower(), trunk)
        else:
            paths = [path for path in names if matches(pattern, path)]
            if not paths:
                depth = pattern.count(".")
                raise unknown(
                    "place",
                    pattern,
                    [*PLACEMENTS, *(path for path in names if path.count(".") <= depth)][:40],
                )
        found |= {last_element(model, path) for path in paths}
    return [path for path in names if path in found]

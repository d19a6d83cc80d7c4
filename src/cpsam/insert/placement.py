"""Where blocks go: path patterns, and named placements that are found from a model's own structure."""

from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import groupby

from torch import nn

from cpsam.errors import UserError, unknown
from cpsam.insert.hook import host_modules
from cpsam.insert.place_class import own_class
from cpsam.insert.probe import Probe

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Stage = list[str]


def is_plain_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def repeated_modules(model: nn.Module, probe: Probe) -> list[str]:
    """The building blocks of a network in the order that they run in: modules of a class that stands several times in one container.

    Residual blocks, in practice. A class that holds others of them is a stage, not a block. Where no module with modules inside repeats,
    the layers of the containers do.
    """
    modules = list(host_modules(model))
    own = {module for _, module in modules}
    parents = [module for _, module in modules if isinstance(module, CONTAINERS)]
    for composite in (True, False):
        candidates = {
            child
            for parent in parents
            for child in own.intersection(parent.children())
            if (not own.isdisjoint(child.children())) == composite and not is_plain_sequential(child)
        }
        repeated: set[type[nn.Module]] = set()
        for parent in parents:
            counts = Counter(own_class(child) for child in parent.children() if child in candidates)
            repeated |= {kind for kind, count in counts.items() if count > 1}
        units = {child for child in candidates if own_class(child) in repeated}
        units -= {unit for unit in units if any(inner in units for inner in unit.modules() if inner is not unit)}
        paths = [path for path, module in modules if module in units and grows_with_image(probe, path)]
        if paths:
            return sorted(paths, key=lambda path: probe.visits[path].order)
    return []


def grows_with_image(probe: Probe, path: str) -> bool:
    try:
        return probe.channels(path) > 0
    except UserError:
        return False


def find_stages(model: nn.Module, probe: Probe) -> list[tuple[int, Stage]]:
    """Runs of building blocks with the same output stride, as (stride, paths), in the order that they run in.

    They end where the stride falls: after that comes a decoder, which has strides 16 and 8 again, and which no placement means.
    """
    stages = [(stride, list(paths)) for stride, paths in groupby(repeated_modules(model, probe), key=probe.stride)]
    falls = (index for index in range(1, len(stages)) if stages[index][0] < stages[index - 1][0])
    return stages[: next(falls, None)]


def branch_norm(model: nn.Module, probe: Probe, block: str) -> str:
    """The last norm of a block's residual branch.

    It is the norm with the longest chain of operations before it, and so never the one of a shortcut.
    """
    modules = list(host_modules(model))
    own = {module for _, module in modules}
    norms = [
        path
        for path, module in modules
        if path.startswith(f"{block}.")
        and "norm" in type(module).__name__.lower()
        and not any(isinstance(inner, (nn.Conv2d, nn.Linear)) for inner in own.intersection(module.modules()))
        and grows_with_image(probe, path)
    ]
    if not norms:
        raise UserError(f"cannot insert in the residual branch of {block!r}: it has no norm that returns (N, C, H, W)")
    return max(norms, key=lambda path: probe.visits[path].depth)


def at_strides(name: str, model: nn.Module, probe: Probe, strides: Sequence[int]) -> list[Stage]:
    """The stages at the strides that a placement is defined by."""
    if probe.rescales:
        raise UserError(f"placement {name!r} needs output strides, and this model scales its images before: insert into its backbone alone")
    stages = find_stages(model, probe)
    found = [stage for stride, stage in stages if stride in strides]
    have = {stride for stride, _ in stages}
    missing = [stride for stride in strides if stride not in have]
    if missing:
        raise UserError(
            f"placement {name!r} needs blocks at output stride {', '.join(map(str, missing))}; "
            f"this model has blocks at stride {', '.join(map(str, sorted(have))) or 'none'}"
        )
    return found


def beyond_first(name: str, stages: list[tuple[int, Stage]]) -> list[Stage]:
    if len(stages) < 2:
        raise UserError(f"placement {name!r} needs at least two stages of repeated modules; this model has {len(stages)}")
    return [stage for _, stage in stages[1:]]


def nl_c4_last(name: str, model: nn.Module, probe: Probe) -> list[str]:
    """One block after the last residual block of c4 (output stride 16)."""
    return [at_strides(name, model, probe, [16])[-1][-1]]


def nl_every_second_c3_c4(name: str, model: nn.Module, probe: Probe) -> list[str]:
    """After every second residual block of c3 and c4 (output strides 8 and 16)."""
    return [path for stage in at_strides(name, model, probe, [8, 16]) for path in stage[1::2]]


def gc_c3_c5(name: str, model: nn.Module, probe: Probe) -> list[str]:
    """In every residual block of c3, c4 and c5 (strides 8, 16, 32), after the branch's last norm, before the addition."""
    return [branch_norm(model, probe, path) for stage in at_strides(name, model, probe, [8, 16, 32]) for path in stage]


def before_last(name: str, model: nn.Module, probe: Probe) -> list[str]:
    """Right before the last residual block of each stage but the first."""
    stages = find_stages(model, probe)
    order = [path for _, stage in stages for path in stage]
    return [order[order.index(stage[-1]) - 1] for stage in beyond_first(name, stages)]


def stage_ends(name: str, model: nn.Module, probe: Probe) -> list[str]:
    """After the last block of each stage but the first; in the last stage it is a classifier head, to show, not to conclude from."""
    return [stage[-1] for stage in beyond_first(name, find_stages(model, probe))]


def early(name: str, model: nn.Module, probe: Probe) -> list[str]:
    """After the last block of the first two stages."""
    stages = find_stages(model, probe)
    beyond_first(name, stages)
    return [stage[-1] for _, stage in stages[:2]]


def every_branch(name: str, model: nn.Module, probe: Probe) -> list[str]:
    """In every residual block, after the branch's last norm, before the addition; the placement of SE."""
    stages = find_stages(model, probe)
    if not stages:
        raise UserError(f"placement {name!r} needs repeated modules; this model has none")
    return [branch_norm(model, probe, path) for _, stage in stages for path in stage]


PLACEMENTS: dict[str, Callable[[str, nn.Module, Probe], list[str]]] = {
    "before-last": before_last,
    "stage-ends": stage_ends,
    "early": early,
    "every-branch": every_branch,
    "nl-c4-last": nl_c4_last,
    "nl-every-second-c3-c4": nl_every_second_c3_c4,
    "gc-c3-c5": gc_c3_c5,
}


def matches(pattern: str, path: str) -> bool:
    """Whether `path` fits `pattern`, in which ``*`` stands for one segment.

    Example:
        >>> matches("layer3.*", "layer3.0"), matches("layer3.*", "layer3.0.conv1")
        (True, False)
    """
    wanted, given = pattern.split("."), path.split(".")
    return len(wanted) == len(given) and all(map(fnmatchcase, given, wanted))


def last_element(model: nn.Module, path: str) -> str:
    """The last module in a plain ``nn.Sequential``: it returns the same, and a scripted model calls a Sequential's hook twice."""
    while isinstance(module := model.get_submodule(path), nn.Sequential) and is_plain_sequential(module):
        if len(module) == 0:
            raise UserError(f"cannot insert at {path!r}: it is an empty Sequential")
        path = f"{path}.{list(module._modules)[-1]}"
    return path


def resolve(model: nn.Module, at: str | Sequence[str], probe: Probe) -> list[str]:
    """The module paths that `at`, placement names and path patterns, stands for, each once, in the order of the model.

    Raises:
        UserError: If a name or pattern finds nothing; says what there is.
    """
    wanted = [at] if isinstance(at, str) else list(at)
    if not wanted:
        raise UserError("no place to insert at: `at` is empty")
    names = [path for path, _ in host_modules(model) if path]
    found: set[str] = set()
    for pattern in wanted:
        if pattern in PLACEMENTS:
            paths = PLACEMENTS[pattern](pattern, model, probe)
        else:
            paths = [path for path in names if matches(pattern, path)]
            if not paths:
                depth = pattern.count(".")
                raise unknown("place", pattern, [*PLACEMENTS, *(path for path in names if path.count(".") <= depth)][:40])
        found |= {last_element(model, path) for path in paths}
    return [path for path in names if path in found]

"""Finds the tensors of a network among all that a file holds.

There is one name in the file, and one prefix of keys, at which everything fits.

"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpsam.errors import DataError, UserError
from cpsam.models.state_file import FileContent, Skipped

WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""What torch.compile, FSDP and activation checkpointing put into keys, at any level."""
OLD_NAMES = re.compile(r"(?<=\.)(norm|conv)\.([12])(?=\.)")
"""Old names in torchvision's published DenseNets: ``norm.1`` for today's ``norm1``."""
COUNTERS = re.compile(r"(?:.*\.)?(?:total_ops|total_params|n_averaged)")
"""Buffers that profilers (thop) and ``AveragedModel`` add."""
AUXILIARY = re.compile(r"(?:aux1|aux2|AuxLogits)\..*")
"""Auxiliary heads of torchvision's GoogLeNet and Inception, which we build without them."""
AVERAGES = {"ema", "swa", "average", "averaged", "shadow"}
DEEPEST = 5


@dataclass(frozen=True)
class Wanted:
    """What a network takes.

    Attributes:
        tensors: Its state.
        heads: Paths of its classifiers. A file may lack one, or have it for other classes.
        blocks: Paths of its inserted blocks. A file may lack all of them.
    """

    tensors: Mapping[str, Tensor]
    heads: Collection[str]
    blocks: Collection[str]


@dataclass
class Candidate:
    """The tensors of a file under one name and one prefix, measured against a network."""

    where: tuple[str, ...]
    prefix: str
    found: dict[str, Tensor]
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    new_heads: dict[str, str] = field(default_factory=dict)
    new_blocks: bool = False
    lacking: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return ".".join(part for part in (*self.where, self.prefix.rstrip(".")) if part)

    @property
    def fits(self) -> bool:
        return not (self.lacking or self.unknown or self.misshapen)

    @property
    def distance(self) -> int:
        return len(self.lacking) + len(self.unknown) + len(self.misshapen)

    @property
    def averaged(self) -> bool:
        return bool(AVERAGES & set(re.split(r"[^a-z]+", self.label.lower())))


def choose(
    path: Path, content: FileContent, wanted: Wanted, key: str | None
) -> tuple[Candidate, list[str]]:
    """Returns the tensors of the file that fit the network, and one line per decision.

    Args:
        path: For messages.
        content: What the file holds.
        wanted: What the network takes.
        key: Which tensors to take where several fit: a name in the file, as ``state_dict_ema``, or
            a prefix of keys, as ``encoder_q``. None: the average of the weights, if the file has
            one.

    Returns:
        The candidate that fits, or the one that comes nearest.

    Raises:
        DataError: If the file holds no tensors by name.
        UserError: If several fit and none is the average, or `key` names none or several.
    """
    candidates = [
        candidate
        for where, state in states(content.tree)
        for candidate in measured(where, state, wanted)
    ]
    if not candidates:
        raise DataError(f"weights file {path} holds no tensors by name; {described(content)}")
    if key is not None:
        named = [
            candidate for candidate in candidates if f".{key.strip('.')}." in f".{candidate.label}."
        ]
        if not named:
            raise UserError(
                f"weights file {path} has nothing named {key!r}; it has"
                f" {listed(labels(candidates))}"
            )
        candidates = named
    fitting = [candidate for candidate in candidates if candidate.fits]
    if not fitting:
        return min(candidates, key=lambda candidate: candidate.distance), []
    distinct = without_copies(fitting)
    if len(distinct) == 1:
        return distinct[0], []
    averaged = [candidate for candidate in distinct if candidate.averaged]
    if len(averaged) != 1:
        raise UserError(
            f"weights file {path} has several weights of this network: {listed(labels(distinct))};"
            " name one as weights_key"
        )
    rest = [candidate for candidate in distinct if candidate is not averaged[0]]
    return averaged[0], [
        f"{averaged[0].label} is taken, the average; weights_key chooses"
        f" {' or '.join(labels(rest))} instead"
    ]


def states(
    tree: Any, where: tuple[str, ...] = (), seen: set[int] | None = None
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yields every mapping in a file that holds tensors by name, once, with its path."""
    seen = set() if seen is None else seen
    if not isinstance(tree, Mapping) or id(tree) in seen or len(where) > DEEPEST:
        return
    seen.add(id(tree))
    named = {key: value for key, value in tree.items() if isinstance(key, str)}
    if any(isinstance(value, Tensor) for value in named.values()):
        yield where, named
    for key, value in named.items():
        yield from states(value, (*where, key), seen)


def measured(where: tuple[str, ...], state: Mapping[str, Any], wanted: Wanted) -> list[Candidate]:
    """Returns the tensors of a mapping after each prefix that may be a wrapper's."""
    plain = {current_name(key, wanted): value for key, value in state.items()}
    plain = plain if len(plain) == len(state) else dict(state)
    host = [key for key in wanted.tensors if not within(key, wanted.blocks)]
    anchors = {host[0], host[len(host) // 2]} if host else set()  # two, in case the file lacks one
    prefixes = {""} | {
        key.removesuffix(anchor)
        for key in plain
        for anchor in anchors
        if f".{key}".endswith(f".{anchor}")
    }
    candidates: list[Candidate] = []
    for prefix in sorted(prefixes, key=lambda prefix: (-len(prefix), prefix)):
        # A whole network after a longer prefix is not a part of one after a shorter prefix.
        whole = tuple(candidate.prefix for candidate in candidates if candidate.fits)
        candidates.append(measure(where, prefix, plain, wanted, whole))
    candidates.sort(key=lambda candidate: (len(candidate.prefix), candidate.prefix))
    likely = [
        candidate for candidate in candidates if len(candidate.found) * 2 >= len(wanted.tensors)
    ]
    return likely or [min(candidates, key=lambda candidate: candidate.distance)]


def current_name(key: str, wanted: Wanted) -> str:
    """Returns the key without wrappers inside it, and with the name that a part has today."""
    key = WRAPPERS.sub("", key)
    renamed = OLD_NAMES.sub(r"\1\2", key)
    if renamed == key:
        return key
    return renamed if any(f".{renamed}".endswith(f".{own}") for own in wanted.tensors) else key


def measure(
    where: tuple[str, ...],
    prefix: str,
    state: Mapping[str, Any],
    wanted: Wanted,
    apart: tuple[str, ...] = (),
) -> Candidate:
    """Measures the keys after a prefix against a network, but not those after `apart`."""
    own = wanted.tensors
    keys = [key for key in state if key.startswith(prefix) and not key.startswith(apart)]
    inside = {key.removeprefix(prefix): state[key] for key in keys}
    found = Candidate(
        where,
        prefix,
        {key: value for key, value in inside.items() if key in own and isinstance(value, Tensor)},
    )
    found.shapes = {key: value.shape for key, value in inside.items() if isinstance(value, Tensor)}
    found.new_blocks = bool(wanted.blocks) and not any(within(key, wanted.blocks) for key in inside)
    for head in wanted.heads:
        renew_head(found, head, inside, own)
    found.others = sorted(state.keys() - keys)
    for key in inside.keys() - own.keys():
        droppable = (
            COUNTERS.fullmatch(key)
            or AUXILIARY.fullmatch(key)
            or not isinstance(inside[key], Tensor)
        )
        (found.others if droppable or within(key, found.new_heads) else found.unknown).append(key)
    excused = [*found.new_heads, *(wanted.blocks if found.new_blocks else ())]
    # Older files lack the step counters of the norms; nothing reads them if the momentum is fixed.
    found.lacking = sorted(
        key
        for key in own.keys() - found.found.keys()
        if not key.endswith("num_batches_tracked") and not within(key, excused)
    )
    found.misshapen = sorted(
        key for key, value in found.found.items() if value.shape != own[key].shape
    )
    found.unknown.sort()
    return found


def renew_head(
    found: Candidate, head: str, inside: Mapping[str, Any], own: Mapping[str, Tensor]
) -> None:
    """Leaves out a classifier that the file lacks, or has for other classes."""
    weight, given = own[f"{head}.weight"], inside.get(f"{head}.weight")
    if isinstance(given, Tensor) and (
        given.shape[1:] != weight.shape[1:] or given.shape == weight.shape
    ):
        return
    if given is None and f"{head}.bias" in inside:
        return
    found.new_heads[head] = f"the file has no {head}.weight"
    if isinstance(given, Tensor):
        found.new_heads[head] = f"{len(given)} classes in the file, {len(weight)} wanted"
    for key in [key for key in found.found if within(key, (head,))]:
        del found.found[key]


def without_copies(candidates: list[Candidate]) -> list[Candidate]:
    """Returns those that differ: a trainer may keep one module under two names."""
    distinct: list[Candidate] = []
    for candidate in candidates:
        if not any(same(candidate.found, other.found) for other in distinct):
            distinct.append(candidate)
    return distinct


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        tensor.dtype == other[key].dtype and torch.equal(tensor, other[key])
        for key, tensor in one.items()
    )


def within(key: str, paths: Collection[str]) -> bool:
    return any(key.startswith(f"{path}.") for path in paths)


def labels(candidates: list[Candidate]) -> list[str]:
    return [candidate.label or "'.' (the keys without a prefix)" for candidate in candidates]


def described(content: FileContent) -> str:
    if isinstance(content.tree, Mapping):
        objects = [f"{key} ({kind_of(value)})" for key, value in content.tree.items()]
        return f"it has {listed(objects)}" if objects else "it is empty"
    return f"it holds {kind_of(content.tree)}"


def kind_of(value: Any) -> str:
    """Returns the kind of a value; for an object that was not built, the name of its class."""
    if isinstance(value, Skipped):
        return f"an object of {type(value).__name__}: save its state_dict() instead"
    return type(value).__name__


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def listed(names: Collection[str], shown: int = 3) -> str:
    """Returns the first three of many names, and how many more there are.

    A name with characters that cannot be printed is quoted.

    Example:
        >>> listed(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    first = list(names)[:shown]
    head = ", ".join(name if name and name.isprintable() else ascii(name) for name in first)
    return head if len(names) <= shown else f"{head} and {len(names) - shown} more"

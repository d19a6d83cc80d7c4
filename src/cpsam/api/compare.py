"""Compares blocks from Python, given as names or objects, as ``cpsam compare`` does."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from cpsam.api.arguments import (
    PathLike,
    as_path,
    as_tuple,
    folder_of,
    network_name,
    refuse_unknown,
    seeds_of,
    shown,
    split_fields,
)
from cpsam.config.presets import Preset, preset_for
from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, NamedArm, Setting, Study
from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.report.results import Results
from cpsam.run.arm import parse_arm
from cpsam.run.data import LoadedTask, load_task, prepare
from cpsam.run.events import OnEvent
from cpsam.run.objects import identify, unwrap
from cpsam.run.own_data import own_dataset
from cpsam.study.conduct import conduct


def compare(
    blocks: Mapping[str, Any] | Iterable[str],
    *,
    folder: PathLike,
    data: Any = "cued-digits",
    model: Any = None,
    at: str | Iterable[str] | None = None,
    seeds: int | Iterable[int] = 3,
    recipe: Recipe | None = None,
    threads: int = 1,
    runs_at_once: int = 0,
    primary: tuple[str, str] | None = None,
    control: bool = True,
    budget: str = "epochs",
    validation: float = 0.0,
    augment: bool = True,
    data_root: PathLike | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    on_event: OnEvent | None = None,
    **fields: Any,
) -> Results:
    """Trains each block with each seed, and puts accuracy and cost side by side.

    The same call after an interruption continues, and finished runs are read. A run is named by its
    content. So a block, a network or data that changed make other runs, which the call trains anew.

    Args:
        blocks: Arm -> its block. A block is None for the bare network, a name with arguments if
            wanted (``"cpsam:fusion=sum"``), or a class or another callable from channels to a
            module. A list of names stands for arms of these names.
        folder: Of the comparison; each run has a folder of its own in it.
        data: The name of a data set; or a pair (train, test) of torch Datasets, as in
            :func:`cpsam.data.sets.torch_dataset.from_torch`; or a data set of
            :func:`cpsam.load_dataset`.
        model: The name of a network, or a callable without arguments that makes one. Default: that
            of the preset with the name of the data set, else ``"resnet20"``.
        at: Placements or path patterns. Default: as for `model`, else ``"before-last"``.
        seeds: A list of seeds; or a number of seeds, which then start at 0.
        recipe: How every arm is trained. Default: as for `model`, else ``Recipe()``.
        threads: Of a run, part of what it is; 0 takes as many as torch.
        runs_at_once: Runs at once, each in a process of its own; no result depends on it. 0 takes
            the cores divided by the threads of a run, and one at a time on a GPU.
        primary: The question: the arm and the reference. Default: CPSAM against Non-Local where
            both take part, else the last arm against the first.
        control: Add the parameter-matched control where the question is about two blocks.
        budget: "epochs", or "time": each arm trains as long as the bare network.
        validation: Hold out this fraction of the train split and measure on it.
        augment: Shift images of bytes at random, and mirror them; for data as objects.
        data_root: The folder of data sets.
        retry_failed: Try failed runs once more.
        progress: Draw progress on a terminal and in a notebook, print lines elsewhere.
        on_event: Called with what happens, as in :func:`cpsam.study.conduct.conduct`.
        **fields: Fields of the recipe, such as ``epochs=8`` or ``lr=0.1``, and the other fields of
            :class:`cpsam.config.task.Task`, such as ``weights="resnet.pth"`` or ``image_size=64``.

    Raises:
        UserError: If a name is unknown, arguments do not fit together, or an object has no identity
            (:mod:`cpsam.run.objects`).
        DataError: If data or weights are missing or damaged.
        StoppedError: On Ctrl-C; the same call continues.
    """
    refuse_unknown(compare, fields, Task, Recipe)
    of_task, of_recipe = split_fields(fields)
    target = folder_of(folder)
    with shown(progress, on_event, study=True) as tell:
        dataset = None if isinstance(data, str) else own_dataset(data, augment, tell)
        name = data if dataset is None else dataset.name
        preset = preset_for(name) if dataset is None else Preset(Recipe(), {})
        given: dict[str, Any] = {**preset.task, "data": name, **of_task}
        if model is not None:
            given["model"] = network_name(model)
        if at is not None:
            given["at"] = as_tuple(at)
        task = Task(data_root=as_path(data_root), validation=validation, **given)
        network = None if model is None or isinstance(model, str) else unwrap(model)

        def load(task: Task, on_event: OnEvent) -> LoadedTask:
            if dataset is None:
                loaded = load_task(task, on_event)
            else:
                loaded = prepare(task, dataset, on_event)
            loaded = replace(loaded, network=network)
            if network is not None:
                loaded.host.check(loaded.input_shape)
            return loaded

        study = Study(
            name="",
            settings=(Setting("", task, named_arms(blocks)),),
            seeds=seeds_of(seeds),
            recipe=replace(recipe or preset.recipe, **of_recipe),
            threads=threads,
            primary=None if primary is None else Contrast(*primary, setting=""),
            budget=budget,
            control=control,
        )
        found = conduct(
            study,
            target,
            runs_at_once=runs_at_once,
            command="cpsam.compare(...)",
            on_event=tell,
            retry_failed=retry_failed,
            load=load,
        )
    return Results.from_json(found)


def named_arms(blocks: Mapping[str, Any] | Iterable[str]) -> tuple[NamedArm, ...]:
    """Returns the arms that a person's blocks stand for, in their order."""
    if isinstance(blocks, str):
        raise UserError(f"blocks must be a dictionary or a list of names; got {blocks!r}")
    if not isinstance(blocks, Mapping):
        arms = [parse_arm(text) for text in blocks]
        return tuple(NamedArm(arm.name, arm.attention, arm.arguments) for arm in arms)
    return tuple(named_arm(name, block) for name, block in blocks.items())


def named_arm(name: str, block: Any) -> NamedArm:
    if not isinstance(name, str):
        raise UserError(f"the name of an arm must be text; got {name!r}")
    if block is None:
        return NamedArm(name, "none")
    if isinstance(block, str):
        arm = parse_arm(block)
        return NamedArm(arm.name if arm.attention == name else name, arm.attention, arm.arguments)
    if isinstance(unwrap(block), nn.Module):
        kind = type(unwrap(block)).__name__
        raise UserError(
            f"the block of {name} is a {kind} object, and each place needs one of its own: give the"
            f" class, or a function such as lambda channels: {kind}(channels)"
        )
    if not callable(unwrap(block)):
        raise UserError(
            f"the block of {name} must be None, a name, or a callable from channels to a module;"
            f" got {type(unwrap(block)).__name__}"
        )
    return NamedArm(name, identify(block, name), block=unwrap(block))

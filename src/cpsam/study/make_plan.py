"""Makes the plan of a study: checks what is asked, counts costs, and names the runs."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, NamedArm, Setting, Study, Task
from cpsam.errors import CpsamError, UserError
from cpsam.run.arm import BARE, Arm, checked_arm, parse_arm
from cpsam.run.data import LoadedTask, load_task
from cpsam.run.events import OnEvent
from cpsam.run.names import with_known_names
from cpsam.run.spec import RunSpec
from cpsam.study.budget import epochs_in_time
from cpsam.study.control import complete_controls, with_control
from cpsam.study.costs import Costs
from cpsam.study.duplicate_arms import duplicate_arms
from cpsam.study.plan import Plan, PlannedArm
from cpsam.study.question import check_contrasts, default_primary

Load = Callable[[Task, OnEvent], LoadedTask]


def make_plan(
    study: Study,
    on_event: OnEvent,
    known_epochs: dict[str, int] | None = None,
    load: Load | None = None,
) -> Plan:
    """Loads the data, checks every arm in every setting, and names the runs.

    Nothing is trained or written.

    Args:
        study: What is asked for.
        on_event: Told of loading.
        known_epochs: Of a budget of time: what was measured before, so that a study is planned
            once; new figures are added to it.
        load: Loads a task. Default: :func:`cpsam.run.data.load_task`.

    Raises:
        UserError: If a name is unknown, an insertion is refused, or arms or contrasts do not fit
            together.
        DataError: If data or weights are missing or damaged.
    """
    settings = tuple(replace(each, task=with_known_names(each.task)) for each in study.settings)
    study = replace(study, settings=settings)
    by_files: dict[Task, LoadedTask] = {}
    known_epochs = {} if known_epochs is None else known_epochs
    loaded, bare, heads, notes, warnings = {}, {}, {}, [], []
    asked = {}
    for setting in study.settings:
        with naming(setting):
            asked[setting.name] = [read_arm(arm) for arm in setting.arms]
    primary = study.primary or default_primary(asked)
    if study.control:
        asked = {
            setting: with_control(arms, setting, study, primary) for setting, arms in asked.items()
        }
    check_contrasts(study, primary, asked)
    planned: list[PlannedArm] = []
    for setting in study.settings:
        with naming(setting):
            key = replace(
                setting.task, at=(), model=setting.task.model if setting.task.weights else ""
            )
            if key not in by_files:
                by_files[key] = (load or load_task)(setting.task, on_event)
            loaded[setting.name] = replace(by_files[key], task=setting.task)
            found = plan_setting(
                study, setting, asked[setting.name], primary, loaded[setting.name], known_epochs
            )
        costs, arms, more, warned = found
        bare[setting.name], heads[setting.name] = costs[BARE], costs.heads
        planned += arms
        warnings += warned
        notes += [f"{setting.name}: {note}" if len(study.settings) > 1 else note for note in more]
    runs = unique(
        spec for index in range(len(study.seeds)) for spec in (arm.specs[index] for arm in planned)
    )
    return Plan(
        replace(study, primary=primary),
        loaded,
        bare,
        heads,
        tuple(planned),
        runs,
        tuple(notes),
        tuple(warnings),
    )


@contextmanager
def naming(setting: Setting) -> Iterator[None]:
    """Lets an error name the setting that it is in."""
    try:
        yield
    except CpsamError as error:
        if not setting.name:
            raise
        raise type(error)(f"setting {setting.name}: {error}") from error


def plan_setting(
    study: Study,
    setting: Setting,
    arms: list[Arm],
    primary: Contrast,
    loaded: LoadedTask,
    known_epochs: dict[str, int],
) -> tuple[Costs, list[PlannedArm], list[str], list[str]]:
    """Returns the costs, the arms, and notes and warnings on them."""
    costs = Costs(loaded)
    arms, notes = complete_controls(arms, costs, primary)
    recipes = {arm.name: replace(study.recipe, **own_recipe(setting, arm.name)) for arm in arms}
    warnings = differing_recipes(setting.name, study.recipe, recipes)
    if study.budget == "time":
        recipes = epochs_in_time(
            recipes, {arm.name: arm for arm in arms}, loaded, known_epochs, study.threads
        )
        epochs = ", ".join(f"{name} {recipe.epochs}" for name, recipe in recipes.items())
        notes.append(f"Equal time for every arm, in epochs: {epochs}.")
    widths = [channels for arm in arms for channels in costs[arm].widths]
    for one, other in duplicate_arms(arms, recipes, widths):
        where = f" in {setting.name}" if setting.name else ""
        warnings.append(
            f"{one.name} and {other.name} are the same block at the places{where}: it would be"
            " trained twice."
        )
    planned = [
        PlannedArm(
            setting.name,
            arm,
            recipes[arm.name],
            costs[arm],
            tuple(
                RunSpec.of(loaded, arm, seed, recipes[arm.name], study.threads)
                for seed in study.seeds
            ),
        )
        for arm in arms
    ]
    return costs, planned, notes, warnings


def read_arm(asked: str | NamedArm) -> Arm:
    if isinstance(asked, str):
        return parse_arm(asked)
    return checked_arm(asked.name, asked.attention, dict(asked.arguments), asked.block)


def own_recipe(setting: Setting, name: str) -> dict[str, Any]:
    return next(
        (
            dict(arm.recipe)
            for arm in setting.arms
            if isinstance(arm, NamedArm) and arm.name == name
        ),
        {},
    )


def differing_recipes(setting: str, shared: Recipe, recipes: Mapping[str, Recipe]) -> list[str]:
    """Returns a sentence for each arm that has another recipe than the study."""
    ours, warnings = asdict(shared), []
    for name, recipe in recipes.items():
        differing = recipe.differing_from(shared)
        if differing:
            what = ", ".join(
                f"{key} {json.dumps(value)} instead of {json.dumps(ours[key])}"
                for key, value in differing.items()
            )
            warnings.append(
                f"{name}{f' in {setting}' if setting else ''} differs from the others in more than"
                f" its block: {what}."
            )
    return warnings


def unique(specs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """Returns each run once. What two settings share, such as the bare network, is one run.

    Raises:
        UserError: If two arms of different names would have one folder.
    """
    found: dict[str, RunSpec] = {}
    for spec in specs:
        other = found.setdefault(spec.folder_name, spec)
        if other.arm.name != spec.arm.name:
            raise UserError(
                f"arms {other.arm.name!r} and {spec.arm.name!r} are one and the same run; leave"
                " one out"
            )
    return tuple(found.values())

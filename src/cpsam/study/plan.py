"""From what is asked for to the runs that answer it: arms x seeds x settings, each run a
specification with a folder of its own.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, NamedArm, Setting, Study
from cpsam.config.task import Task
from cpsam.errors import CpsamError, UserError, unknown
from cpsam.run.arm import BARE, Arm, check_complete, checked_arm, parse_arm
from cpsam.run.cost import Cost, cost_of
from cpsam.run.data import LoadedTask, load_task
from cpsam.run.events import OnEvent
from cpsam.run.names import with_known_names
from cpsam.run.spec import RunSpec
from cpsam.study.budget import epochs_in_time
from cpsam.study.control import arm_parameters, match_parameters
from cpsam.study.duplicate_arms import duplicate_arms

# The primary contrast where none is named and both take part, by block; the first arm of each block
# stands for it.
PRIMARY = ("cpsam", "non_local")
CONTROL = "conv_control"
ALONE = "(no other arm)"  # the reference of an arm that has none to be compared with


@dataclass(frozen=True)
class PlannedArm:
    """An arm in a setting, with its cost there and its runs, one a seed."""

    setting: str
    arm: Arm
    recipe: Recipe
    cost: Cost
    specs: tuple[RunSpec, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.setting, self.arm.name


@dataclass(frozen=True)
class Plan:
    """What a study comes to.

    Attributes:
        study: What was asked for, its primary contrast filled in.
        loaded: The task of each setting with its data, by the name of the setting.
        bare: The cost of the bare network in each setting.
        heads: What becomes of the classifier of pretrained weights in each setting.
        arms: Setting by setting, in their order.
        runs: Each specification once, seed by seed, so that a study that is stopped early is paired
            as far as it got.
        notes: What a reader should know.
        warnings: Where arms differ in anything but the block.
    """

    study: Study
    loaded: Mapping[str, LoadedTask]
    bare: Mapping[str, Cost]
    heads: Mapping[str, tuple[str, ...]]
    arms: tuple[PlannedArm, ...]
    runs: tuple[RunSpec, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The secondary questions."""
        assert self.study.primary is not None
        if self.study.contrasts:
            return self.study.contrasts
        first = self.study.primary.arm
        with_it = {arm.setting for arm in self.arms if arm.arm.name == first}
        against = (
            Contrast(first, arm.arm.name, arm.setting)
            for arm in self.arms
            if arm.setting in with_it and arm.arm.name != first
        )
        return tuple(contrast for contrast in against if contrast != self.study.primary)

    def label(self, setting: str, arm: str) -> str:
        """The name of an arm that is its own in the whole study."""
        return arm if len(self.study.settings) == 1 else f"{arm} @ {setting}"

    def run_labels(self) -> dict[str, str]:
        """The folder of a run -> the name of its arm; without a setting, if several have
        the run.
        """
        labels: dict[str, str] = {}
        for arm in self.arms:
            for spec in arm.specs:
                name = spec.folder_name
                labels[name] = (
                    arm.arm.name if name in labels else self.label(arm.setting, arm.arm.name)
                )
        return labels

    def describe(self) -> dict[str, Any]:
        """The plan as plain data: the question, the seeds, and every run by its folder."""
        study = self.study
        assert study.primary is not None
        return {
            "schema": 1,
            "name": study.name,
            "primary": [study.primary.arm, study.primary.reference, study.primary.setting],
            "contrasts": [
                [contrast.arm, contrast.reference, contrast.setting] for contrast in study.contrasts
            ],
            "seeds": list(study.seeds),
            "budget": study.budget,
            "recipe": study.recipe.to_dict(),
            "arms": {
                f"{arm.arm.name} in {arm.setting}": {
                    "attention": arm.arm.attention,
                    "arguments": dict(arm.arm.arguments),
                    "recipe": arm.recipe.differing_from(study.recipe),
                }
                for arm in self.arms
            },
            "runs": {
                spec.folder_name: spec.content
                for spec in sorted(self.runs, key=lambda spec: spec.folder_name)
            },
        }


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
    """An error of a plan with several settings says which it is in."""
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
) -> tuple["Costs", list[PlannedArm], list[str], list[str]]:
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


class Costs:
    """The cost of each arm in one network, which is built once per arm."""

    def __init__(self, loaded: LoadedTask) -> None:
        self.loaded = loaded
        self.known: dict[str, Cost] = {}
        self.notes: list[str] = []

    def __getitem__(self, arm: Arm) -> Cost:
        key = json.dumps([arm.attention, dict(arm.arguments)], sort_keys=True)
        if key not in self.known:
            widths: list[int] = []
            model = self.loaded.host.build(
                arm, 0, lambda event: self.notes.append(event["text"]), widths.append
            )
            self.known[key] = cost_of(model, self.loaded.input_shape, widths)
        return self.known[key]

    @property
    def heads(self) -> tuple[str, ...]:
        """A line per classifier of pretrained weights: whether it starts anew."""
        if self.loaded.task.weights is None:
            return ()
        notes = [note.removeprefix("weights: ") for note in self.notes]
        found = [note for note in dict.fromkeys(notes) if note.startswith("classifier")]
        return tuple(found) or ("its classifier is kept",)


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


def default_primary(asked: Mapping[str, list[Arm]]) -> Contrast:
    """Returns CPSAM against Non-Local where the first setting has both, else its last arm against
    its first.

    An arm that is alone is against the bare network, which takes no part.
    """
    setting, arms = next(iter(asked.items()))
    blocks = [next((arm.name for arm in arms if arm.attention == block), None) for block in PRIMARY]
    if blocks[0] and blocks[1]:
        return Contrast(blocks[0], blocks[1], setting)
    first, last = arms[0].name, arms[-1].name
    return Contrast(last, first if len(arms) > 1 else ALONE, setting)


def check_contrasts(study: Study, primary: Contrast, asked: Mapping[str, list[Arm]]) -> None:
    """A question in a plan is about arms that take part. A comparison without one of the two is a
    table without an answer.
    """
    for contrast in (*([primary] if study.primary else []), *study.contrasts):
        names = [arm.name for arm in asked[contrast.setting]]
        for name in (contrast.arm, contrast.reference):
            if name not in names:
                raise unknown(f"arm of a contrast in {contrast.setting}", name, names)


def with_control(arms: list[Arm], setting: str, study: Study, primary: Contrast) -> list[Arm]:
    """Returns the arms, and the parameter-matched control where it belongs and is missing.

    It belongs where both sides of the question are, if that was asked or is CPSAM against
    Non-Local, and where a question names it.
    """
    blocks = {arm.name: arm.attention for arm in arms}
    sides = blocks.get(primary.arm), blocks.get(primary.reference)
    both = None not in sides and (study.primary is not None or sides == PRIMARY)
    questions = (primary, *study.contrasts)
    named = any(
        CONTROL in (question.arm, question.reference)
        for question in questions
        if question.setting == setting
    )
    if not (both or named) or any(arm.attention == CONTROL for arm in arms):
        return arms
    return [*arms, Arm(CONTROL, CONTROL)]


def complete_controls(
    arms: list[Arm], costs: "Costs", primary: Contrast
) -> tuple[list[Arm], list[str]]:
    """Give each parameter-matched control its width, and say how near it came to its target.

    That is the arm of the question, or, where this is there but has no parameters to match or is
    the control itself, the other side of it, or else the first CPSAM.
    """

    by_name = {arm.name: arm for arm in arms}
    sides = [
        by_name[name]
        for name in (primary.arm, primary.reference)
        if primary.arm in by_name and name in by_name
    ]
    sides = [arm for arm in sides if arm.attention != CONTROL]
    targets = (*sides, *(arm for arm in arms if arm.attention == "cpsam"), Arm("cpsam", "cpsam"))
    completed, notes = [], []
    for arm in arms:
        if arm.attention == CONTROL and arm.missing:
            target = next(each for each in targets if arm_parameters(each, costs[each].widths))
            widths = costs[target].widths
            arm = match_parameters(arm, target, widths)
            ours, theirs = arm_parameters(arm, widths), arm_parameters(target, widths)
            notes.append(
                f"{arm.name} has {ours:,} parameters, {target.name} has {theirs:,}"
                f" ({(ours - theirs) / theirs:+.1%})."
            )
        completed.append(check_complete(arm))
    return completed, notes


def differing_recipes(setting: str, shared: Recipe, recipes: Mapping[str, Recipe]) -> list[str]:
    """A sentence for each arm that is trained in another way than the study says."""
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
    """Each run once: what two settings share, such as the bare network, is one run.

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

"""What a reader must know before the numbers: warnings, changes of the plan, environments."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from cpsam.report.records import PlanEntry, PlannedBlock
from cpsam.report.results import Results
from cpsam.report.values import words


def remarks(results: Results) -> list[str]:
    """Returns warnings, changes of the plan, and seeds that were run in several environments."""
    return [*results.warnings, *history_words(results.plans), *unlike_words(results)]


def history_words(plans: Sequence[PlanEntry]) -> list[str]:
    """Returns what was changed in a plan after runs of it had ended.

    Adding seeds until a difference shows always finds one, so a reader must see it.
    """
    said = []
    for before, after in pairwise(plans):
        changes = changes_words(before, after)
        listed = " and ".join(part for part in (", ".join(changes[:-1]), *changes[-1:]) if part)
        if listed:
            said.append(
                f"The plan was changed after {after.ended_before} of its {len(before.runs)} runs"
                f" had ended: {listed}."
            )
    return said


def changes_words(before: PlanEntry, after: PlanEntry) -> list[str]:
    # what an older entry does not name counts as unchanged
    recipe, arms = before.recipe or after.recipe or {}, before.arms or after.arms or {}
    new_recipe, new_arms = after.recipe or recipe, after.arms or arms
    changes = [
        *more_or_fewer("seed", before.seeds, after.seeds, named=True),
        *more_or_fewer("arm", arms, new_arms, named=True),
        *more_or_fewer("run", before.runs, after.runs, named=False),
    ]
    if sorted(after.contrasts) != sorted(before.contrasts):
        changes.append("other secondary contrasts")
    if after.budget != before.budget:
        changes.append("another budget")
    changes += altered_words("recipe", recipe, new_recipe)
    for name, arm in arms.items():
        changes += altered_words(name, settings_of(arm), settings_of(new_arms.get(name, arm)))
    return changes


def more_or_fewer(
    what: str, before: Collection[Any], after: Collection[Any], named: bool
) -> list[str]:
    """Returns ``4 more seeds (0, 2, 9, 11)``, ``1 fewer run``; nothing where nothing changed."""
    said = []
    for how, items, others in (("more", after, before), ("fewer", before, after)):
        if each := missing_from(items, others):
            names = f" ({words(each)})" if named else ""
            said.append(f"{len(each)} {how} {what}{'s' * (len(each) != 1)}{names}")
    return said


def missing_from(items: Collection[Any], others: Collection[Any]) -> list[Any]:
    """Returns the items that are not among the others."""
    known = set(others)
    return [item for item in items if item not in known]


def settings_of(block: PlannedBlock) -> dict[str, Any]:
    return {"attention": block.attention, **block.arguments, **block.recipe}


def altered_words(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Returns ``recipe (epochs 3 instead of 2)``; nothing where nothing changed."""
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    pairs = [f"{key} {words(after.get(key))} instead of {words(before.get(key))}" for key in keys]
    return [f"{what} ({', '.join(pairs)})"] if keys else []


def unlike_words(results: Results) -> list[str]:
    """Returns which seeds were run in more than one environment, and in what these differ."""
    seeds: dict[tuple[str, ...], list[str]] = {}
    for seed, keys in results.unlike.items():
        seeds.setdefault(keys, []).append(seed)
    return [
        f"The runs of seed{'s' * (len(alike) > 1)} {words(alike)} come from different environments:"
        f" {words(keys)} differ{'s' * (len(keys) == 1)}. The runs of a pair share the order of the"
        " images and their augmentation, but not that."
        for keys, alike in seeds.items()
    ]

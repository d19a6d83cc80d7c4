"""The plan of a study: arms x seeds x settings, each run with a folder of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, Study
from cpsam.run.arm import Arm
from cpsam.run.cost import Cost
from cpsam.run.data import LoadedTask
from cpsam.run.spec import RunSpec


@dataclass(frozen=True)
class PlannedArm:
    """An arm in a setting, with its cost there, and one run per seed."""

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
    """What a study will do.

    Attributes:
        study: What was asked for, its primary contrast filled in.
        loaded: The task of each setting with its data, by the name of the setting.
        bare: The cost of the bare network in each setting.
        heads: What becomes of the classifier of pretrained weights in each setting.
        arms: Setting by setting, in their order.
        runs: Each specification once, seed by seed. So the runs of a study that is stopped early
            are paired.
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
        """Returns a name of an arm that no other arm of the study has."""
        return arm if len(self.study.settings) == 1 else f"{arm} @ {setting}"

    def run_labels(self) -> dict[str, str]:
        """Returns the name of each run's arm, by the run's folder.

        A run that several settings share has the name without a setting.
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
        """Returns the plan as plain data: the question, the seeds, and every run by its folder."""
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

"""From a question to its runs: each once, each in a folder that its content names."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.plans import ARMS, planned, study

from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, NamedArm, Setting
from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.run.arm import Arm
from cpsam.run.spec import RunSpec


def test_arms_seeds_and_settings_are_crossed_and_what_settings_share_is_one_run() -> None:
    plan = planned(study())
    assert [arm.key for arm in plan.arms] == [
        *(("last", name) for name in (*ARMS, "conv_control")),
        *(("early", name) for name in ("none", "cpsam", "squeeze_excite")),
    ]
    names = [spec.folder_name for spec in plan.runs]
    assert len(names) == len(set(names)) == 2 * (4 + 2), (
        "the bare network is the same in both settings"
    )
    assert [spec.seed for spec in plan.runs] == [5] * 6 + [2] * 6, "seed by seed"
    bare = [arm.specs[0].folder_name for arm in plan.arms if arm.arm.name == "none"]
    assert bare[0] == bare[1]


def test_more_seeds_arms_or_settings_add_runs_and_rename_none() -> None:
    first = {spec.folder_name for spec in planned(study()).runs}
    wider = (*study().settings, Setting("branch", Task(at=("every-branch",)), ("none", "eca")))
    for change in (
        {"seeds": (9, 2, 5)},
        {"settings": wider},
        {"contrasts": (Contrast("cpsam", "none", "early"),)},
    ):
        assert first <= {spec.folder_name for spec in planned(study(**change)).runs}


def test_whatever_changes_a_run_changes_its_name() -> None:
    task = Task()
    spec = RunSpec(task, "f" * 64, (0.5,), (0.25,), None, Arm("cpsam", "cpsam"), 3, Recipe(), 2)
    others = [
        replace(spec, task=Task(at=("early",))),
        replace(spec, task=Task(model="resnet32")),
        replace(spec, task=Task(validation=0.25)),
        replace(spec, data_fingerprint="e" * 64),
        replace(spec, weights_sha256="a" * 64),
        replace(spec, arm=Arm("cpsam", "cpsam", {"reduction": 8})),
        replace(spec, seed=4),
        replace(spec, recipe=Recipe(lr=0.2)),
        replace(spec, threads=1),
    ]
    assert len({other.folder_name for other in [spec, *others]}) == len(others) + 1
    assert (
        replace(spec, task=Task(data_root=Path("elsewhere"), workers=3)).folder_name
        == spec.folder_name
    )
    # Names that runs out there have: a change here is a change that repeats every run of every
    # study.
    assert spec.folder_name == "cpsam-seed3-fd6aaf376a"


def test_an_arm_that_differs_in_more_than_its_block_is_warned_of() -> None:
    assert planned(study()).warnings == ()
    arms = ("none", NamedArm("tuned", "cpsam", {}, {"lr": 0.02, "epochs": 1}), "non_local")
    plan = planned(study(settings=(Setting("last", Task(), arms),)))
    assert plan.warnings == (
        "tuned in last differs from the others in more than its block: lr 0.02 instead of 0.1.",
    )
    assert {arm.arm.name: arm.specs[0].recipe.lr for arm in plan.arms}["tuned"] == 0.02
    assert plan.study.primary == Contrast("tuned", "non_local", "last")
    arms = ("none", NamedArm("plain", "cpsam", {}, {"mixup": 0.0}), "non_local")
    plan = planned(
        study(settings=(Setting("last", Task(), arms),), recipe=Recipe(epochs=1, mixup=0.2))
    )
    assert plan.warnings == (
        "plain in last differs from the others in more than its block: mixup 0.0 instead of 0.2.",
    )


def test_arms_that_would_share_a_folder_are_refused() -> None:
    arms = (NamedArm("a b", "cpsam"), NamedArm("a/b", "cpsam"))
    with pytest.raises(UserError, match=r"'a b' and 'a/b' are one and the same run"):
        planned(study(settings=(Setting("last", Task(), arms),)))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            Setting("second", Task(at=("before-lst",)), ("none", "cpsam")),
            "setting second: unknown place 'before-lst'",
        ),
        (Setting("second", Task(), ("none", "cpsm")), "setting second: unknown attention 'cpsm'"),
        (
            Setting("second", Task(), (NamedArm("x", "eca", {}, {"epochs": 0}),)),
            "setting second: epochs must be a whole number",
        ),
    ],
)
def test_an_error_says_which_setting_it_is_in(second: Setting, words: str) -> None:
    with pytest.raises(UserError) as error:
        planned(study(settings=(study().settings[0], second)))
    assert str(error.value).startswith(words)


def test_a_named_arm_is_checked_like_words() -> None:
    for arm, words in (
        (NamedArm("x", "cpsm"), r"unknown attention 'cpsm'"),
        (
            NamedArm("x", "cpsam", {"fusio": "sum"}),
            r"unknown argument of cpsam 'fusio': did you mean 'fusion'",
        ),
        (NamedArm("x", "none", {"reduction": 2}), r"has no block"),
        (
            NamedArm("non_local", "cpsam"),
            r"arm 'non_local' is cpsam: the name of another block would mislead",
        ),
        (NamedArm("eca", "none"), r"arm 'eca' is none"),
    ):
        with pytest.raises(UserError, match=words):
            planned(study(settings=(Setting("last", Task(), ("none", arm)),)))

"""From a question to its runs: each once, each in a folder that its content names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cpsam.attention import ATTENTION
from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, NamedArm, Setting, Study
from cpsam.config.task import Task
from cpsam.data import Split
from cpsam.errors import UserError
from cpsam.measure import Latency
from cpsam.run.arm import Arm
from cpsam.run.spec import RunSpec
from cpsam.study import budget
from cpsam.study.budget import shortened
from cpsam.study.duplicate_arms import duplicate_arms
from cpsam.study.make_plan import make_plan
from cpsam.study.plan import Plan
from cpsam.study.question import ALONE

ARMS = ("none", "non_local", "cpsam")


def planned(study: Study, known: dict[str, int] | None = None) -> Plan:
    return make_plan(study, lambda event: None, known)


def study(**changes: Any) -> Study:
    settings = (
        Setting("last", Task(), ARMS),
        Setting("early", Task(at=("early",)), ("none", "cpsam", "squeeze_excite")),
    )
    base = Study(name="s", settings=settings, seeds=(5, 2), recipe=Recipe(epochs=1))
    return replace(base, **changes)


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


def test_the_control_comes_with_the_question_and_can_be_left_out() -> None:
    names = lambda plan: [arm.arm.name for arm in plan.arms if arm.setting == "last"]  # noqa: E731
    assert "conv_control" in names(planned(study()))
    assert "conv_control" not in names(planned(study(control=False)))
    own = Setting("last", Task(), (*ARMS, "conv_control:hidden_channels=5"))
    assert names(planned(study(settings=(own,)))) == [*ARMS, "conv_control:hidden_channels=5"]
    plan = planned(study())
    parameters = {
        arm.arm.name: arm.cost.parameters - plan.bare["last"].parameters
        for arm in plan.arms
        if arm.setting == "last"
    }
    assert abs(parameters["conv_control"] / parameters["cpsam"] - 1) <= 0.01


def test_the_control_matches_the_arm_of_the_question() -> None:
    arms = (*ARMS, NamedArm("wide", "cpsam", {"reduction": 2}))
    plan = planned(
        study(
            settings=(Setting("last", Task(), arms),), primary=Contrast("wide", "non_local", "last")
        )
    )
    parameters = {
        arm.arm.name: arm.cost.parameters - plan.bare["last"].parameters for arm in plan.arms
    }
    assert abs(parameters["conv_control"] / parameters["wide"] - 1) <= 0.01


def test_the_question_and_the_others() -> None:
    plan = planned(study())
    assert plan.study.primary == Contrast("cpsam", "non_local", "last")
    assert [(contrast.reference, contrast.setting) for contrast in plan.contrasts] == [
        ("none", "last"),
        ("conv_control", "last"),
        ("none", "early"),
        ("squeeze_excite", "early"),
    ]
    asked = (Contrast("squeeze_excite", "none", "early"),)
    assert planned(study(contrasts=asked)).contrasts == asked
    with pytest.raises(UserError, match=r"unknown arm of a contrast in early 'non_local'"):
        planned(study(contrasts=(Contrast("cpsam", "non_local", "early"),)))
    with pytest.raises(
        UserError, match=r"unknown arm of a contrast in last 'cpsm': did you mean 'cpsam'"
    ):
        planned(study(primary=Contrast("cpsm", "none", "last")))


@pytest.mark.parametrize(
    ("arms", "question", "control"),
    [
        (("none", "non_local", "cpsam"), ("cpsam", "non_local"), True),
        (("cpsam:fusion=sum", "cpsam", "non_local"), ("cpsam:fusion=sum", "non_local"), True),
        (("none", "cpsam"), ("cpsam", "none"), False),
        (("none", "eca", "squeeze_excite"), ("squeeze_excite", "none"), False),
        (("cpsam", "none"), ("none", "cpsam"), False),
        (("cpsam",), ("cpsam", ALONE), False),
        (("none",), ("none", ALONE), False),
    ],
)
def test_the_question_is_what_was_asked(
    arms: tuple[str, ...], question: tuple[str, str], control: bool
) -> None:
    """CPSAM against Non-Local where both take part, else the last arm against the first; only the
    former brings its control.
    """
    setting = Setting("", Task(), arms)
    plan = planned(Study(name="", settings=(setting,), seeds=(0,), recipe=Recipe(epochs=1)))
    assert plan.study.primary == Contrast(*question, "")
    assert [arm.arm.name for arm in plan.arms] == [*arms, *(["conv_control"] if control else [])]


def test_a_question_about_the_control_brings_it_or_is_refused() -> None:
    def names(plan: Plan, setting: str) -> list[str]:
        return [arm.arm.name for arm in plan.arms if arm.setting == setting]

    alone = planned(
        study(
            settings=(Setting("last", Task(), ("none", "cpsam")),),
            primary=Contrast("cpsam", "conv_control", "last"),
        )
    )
    assert names(alone, "last") == ["none", "cpsam", "conv_control"]
    second = planned(study(contrasts=(Contrast("squeeze_excite", "conv_control", "early"),)))
    assert names(second, "early") == ["none", "cpsam", "squeeze_excite", "conv_control"]
    own = Setting("last", Task(), (*ARMS, NamedArm("wide", "conv_control", {"hidden_channels": 5})))
    asked = (Contrast("cpsam", "conv_control", "last"),)
    with pytest.raises(UserError, match=r"unknown arm of a contrast in last 'conv_control'.*wide"):
        planned(study(settings=(own,), contrasts=asked))
    with pytest.raises(UserError, match=r"unknown arm of a contrast in last 'conv_control'"):
        planned(study(contrasts=asked, control=False))


def test_where_the_arm_of_the_question_is_not_the_control_matches_the_first_cpsam() -> None:
    without = Setting(
        "early",
        Task(at=("early",)),
        ("none", "non_local", NamedArm("wide", "cpsam", {"reduction": 2}), "conv_control"),
    )
    plan = planned(study(settings=(study().settings[0], without)))
    added = {
        arm.arm.name: arm.cost.parameters - plan.bare["early"].parameters
        for arm in plan.arms
        if arm.setting == "early"
    }
    assert abs(added["conv_control"] / added["wide"] - 1) <= 0.01
    nobody = planned(
        study(settings=(Setting("last", Task(), ("none", "non_local", "conv_control")),))
    )
    as_cpsam = next(arm for arm in planned(study()).arms if arm.arm.name == "conv_control")
    assert next(arm for arm in nobody.arms if arm.arm.name == "conv_control").arm == as_cpsam.arm
    about_it = planned(study(primary=Contrast("cpsam", "conv_control", "last")))
    assert "conv_control" not in [arm.arm.name for arm in about_it.arms if arm.setting == "early"]


@pytest.mark.parametrize("one", ["none", "conv_control", "eca"])
def test_the_control_matches_the_block_of_the_question_on_whichever_side_it_is(one: str) -> None:
    arms = ("none", "eca", NamedArm("wide", "cpsam", {"reduction": 2}))
    for primary in (Contrast(one, "wide", "last"), Contrast("wide", one, "last")):
        plan = planned(study(settings=(Setting("last", Task(), arms),), primary=primary))
        parameters = {
            arm.arm.name: arm.cost.parameters - plan.bare["last"].parameters for arm in plan.arms
        }
        target = "eca" if primary.arm == "eca" else "wide"
        # The least convolution has one channel inside, and still some hundred parameters.
        assert abs(parameters["conv_control"] - parameters[target]) <= max(
            0.01 * parameters[target], 800
        )


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


def test_arms_that_are_one_block_are_warned_of() -> None:
    """At 32 and 64 channels both reductions come to 8, the least."""
    narrow, wide = (
        NamedArm("narrow", "cpsam", {"reduction": 32}),
        NamedArm("wide", "cpsam", {"reduction": 4}),
    )
    tuned = NamedArm("tuned", "cpsam", {"reduction": 32}, {"lr": 0.02})
    others = (
        "eca",
        "non_local",
        "non_local:mode=dot_product",
        "non_local:mode=embedded_gaussian,scaled=true",
        "conv_control",
        "conv_control:hidden_channels=7",
    )
    plan = planned(
        study(settings=(Setting("last", Task(), ("none", "cpsam", narrow, wide, tuned, *others)),))
    )
    assert [warning for warning in plan.warnings if "same block" in warning] == [
        "cpsam and narrow are the same block at the places in last: it would be trained twice."
    ]


def test_twins_need_a_place_and_maps_that_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    class Square(torch.nn.Module):
        def __init__(self, in_channels: int, side: int = 8, device: str | None = None) -> None:
            super().__init__()
            self.side = side

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1, self.side, self.side)

    monkeypatch.setitem(ATTENTION, "square", Square)
    recipes = {"a": Recipe(), "b": Recipe()}
    assert (
        duplicate_arms([Arm("a", "square"), Arm("b", "square", {"side": 9})], recipes, [32]) == []
    )
    pair = [Arm("a", "cpsam"), Arm("b", "cpsam")]
    assert (
        duplicate_arms(pair, recipes, [32, 64]) == [tuple(pair)]
        and duplicate_arms(pair, recipes, []) == []
    )
    assert duplicate_arms(pair, recipes | {"b": Recipe(lr=0.2)}, [32]) == []


def test_a_block_is_tried_once_however_many_arms_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(torch.nn.Identity):
        def __init__(self, in_channels: int, number: int, device: str | None = None) -> None:
            super().__init__()
            made.append(number)
            self.weight = torch.nn.Parameter(torch.zeros(1 + number // 2))

    monkeypatch.setitem(ATTENTION, "counted", Counted)
    arms = [Arm(f"a{number}", "counted", {"number": number}) for number in range(300)]
    found = duplicate_arms(arms, {arm.name: Recipe() for arm in arms}, [32, 32])
    assert [(one.name, other.name) for one, other in found] == [
        (f"a{number}", f"a{number + 1}") for number in range(0, 300, 2)
    ]
    assert made == [*range(300)]


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


def test_a_budget_of_time_is_measured_once_and_gives_slower_arms_fewer_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = {
        "bare": 1.0,
        "arm none": 1.1,
        "arm conv_control": 0.9,
        "arm non_local": 4.0,
        "arm cpsam": 1.25,
    }
    measured: list[set[str]] = []

    def timed(steps: dict[str, Callable[[], object]], **_: Any) -> dict[str, Latency]:
        measured.append(set(steps))
        for step in steps.values():
            step()
        return {name: Latency(seconds[name], seconds[name], seconds[name], 10) for name in steps}

    monkeypatch.setattr(budget, "measure_latency", timed)
    wanted = study(
        budget="time", recipe=Recipe(epochs=40, batch_size=16), settings=study().settings[:1]
    )
    known: dict[str, int] = {}
    plan = planned(wanted, known)
    # A faster arm gets more, and the bare network what was asked for, whatever the clock said of
    # it.
    assert {arm.arm.name: arm.recipe.epochs for arm in plan.arms} == {
        "none": 40,
        "conv_control": 44,
        "non_local": 10,
        "cpsam": 32,
    }
    assert [spec.folder_name for spec in planned(wanted, known).runs] == [
        spec.folder_name for spec in plan.runs
    ]
    assert measured == [set(seconds)], "once, and never again"
    assert plan.notes[0].startswith("conv_control has "), (
        "a name is not altered at the start of a sentence"
    )
    assert (
        plan.notes[-1]
        == "Equal time for every arm, in epochs: none 40, non_local 10, cpsam 32, conv_control 44."
        and not plan.warnings
    )


def test_a_budget_of_time_is_measured_for_each_size_of_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[tuple[int, int]] = []

    def timed(steps: dict[str, Callable[[], object]], **_: Any) -> dict[str, Latency]:
        seconds = {"bare": 1.0, "arm cpsam": 1.25 * (1 + len(sizes))}
        return {name: Latency(seconds[name], seconds[name], seconds[name], 10) for name in steps}

    monkeypatch.setattr(budget, "measure_latency", timed)
    small = planned(study()).loaded["last"]
    train = Split(torch.zeros(2, 1, 16, 24, dtype=torch.uint8), torch.arange(2))
    wide = replace(small, dataset=replace(small.dataset, train=train))
    recipes, arms, known = {"cpsam": Recipe(epochs=40)}, {"cpsam": Arm("cpsam", "cpsam")}, {}
    epochs = []
    for loaded in (small, wide, small, wide):
        found = budget.epochs_in_time(recipes, arms, loaded, known, threads=1)
        sizes.append(loaded.dataset.image_size)
        epochs.append(found["cpsam"].epochs)
    assert sizes[0] != sizes[1] and epochs == [32, 16, 32, 16]


def test_a_schedule_is_stretched_with_its_epochs() -> None:
    recipe = Recipe(epochs=200, schedule="step", milestones=(0.3, 120, 160), warmup_epochs=5)
    short = shortened(recipe, 100)
    assert (short.epochs, short.milestones, short.warmup_epochs) == (100, (0.3, 60, 80), 2.5)
    assert shortened(Recipe(epochs=8), 5) == Recipe(epochs=5)


@pytest.mark.parametrize(
    ("milestones", "epochs"),
    [((1, 3), 2), ((3, 5), 2), ((2, 4, 6), 2), ((2, 6), 3), ((0.5, 6), 1), ((1, 7), 16)],
)
def test_a_drop_stays_at_its_share_of_the_run(milestones: tuple[float, ...], epochs: int) -> None:
    """From 1 on a milestone is an epoch, below a share: one that shrinks across the border must not
    jump.
    """

    def shares(recipe: Recipe) -> list[float]:
        return [each if each < 1 else each / recipe.epochs for each in recipe.milestones]

    recipe = Recipe(epochs=8, schedule="step", milestones=milestones)
    assert shares(shortened(recipe, epochs)) == pytest.approx(shares(recipe))

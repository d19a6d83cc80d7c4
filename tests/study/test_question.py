"""The question of a study, and the control that comes with it."""

import pytest
from support.plans import ARMS, planned, study

from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, NamedArm, Setting, Study
from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.study.plan import Plan
from cpsam.study.question import ALONE


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

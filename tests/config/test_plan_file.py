"""A plan in a file: every slip is answered by name, and nothing is left at a default by mistake."""

from pathlib import Path

import pytest

from cpsam.config.plan_file import read_plan
from cpsam.config.study import Contrast, NamedArm
from cpsam.errors import UserError

ROOT = Path(__file__).parents[2]
PLAN = """
name = "blocks"
seeds = [3, 0, 7]
[primary]
arm = "narrow"
reference = "non_local"
setting = "late"
[[contrast]]
arm = "cpsam"
reference = "none"
setting = "soon"
[task]
data = "cifar100"
validation = 0.1
weights = "w.safetensors"
[recipe]
epochs = 5
milestones = [0.5]
[arm.narrow]
attention = "cpsam"
arguments = { reduction = 32 }
recipe = { lr = 0.02 }
[[setting]]
name = "late"
at = ["layer3.*"]
arms = ["none", "non_local", "narrow"]
[[setting]]
name = "soon"
model = "resnet32"
arms = ["none", "cpsam:fusion=sum", "cpsam"]
"""


def plan(tmp_path: Path, text: str):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return read_plan(path, data_root=Path("data"), workers=3)


@pytest.mark.parametrize(
    "text", ["\ufeff" + PLAN, PLAN.replace("\n", "\r\n"), PLAN.replace(" = ", "\t=\t")]
)
def test_what_an_editor_does_to_a_plan_changes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.toml").write_bytes(text.encode())
    assert read_plan(tmp_path / "plan.toml", data_root=Path("data"), workers=3) == plan(
        tmp_path, PLAN
    )


def test_every_word_of_a_plan_arrives(tmp_path: Path) -> None:
    study = plan(tmp_path, PLAN)
    assert (study.name, study.seeds, study.threads, study.budget, study.control) == (
        "blocks",
        (3, 0, 7),
        1,
        "epochs",
        True,
    )
    assert study.primary == Contrast("narrow", "non_local", "late")
    assert study.contrasts == (Contrast("cpsam", "none", "soon"),)
    late, soon = study.settings
    assert (late.task.at, late.task.model, soon.task.at, soon.task.model) == (
        ("layer3.*",),
        "resnet20",
        ("before-last",),
        "resnet32",
    )
    assert late.arms == (
        "none",
        "non_local",
        NamedArm("narrow", "cpsam", {"reduction": 32}, {"lr": 0.02}),
    )
    assert soon.arms == ("none", "cpsam:fusion=sum", "cpsam")
    for setting in study.settings:
        task = setting.task
        assert (task.data, task.validation, task.weights) == (
            "cifar100",
            0.1,
            tmp_path / "w.safetensors",
        )
        assert (task.data_root, task.workers) == (Path("data"), 3)
    assert (study.recipe.epochs, study.recipe.milestones, study.recipe.lr) == (5, (0.5,), 0.1)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds =", "seed =", ["unknown key 'seed'", "did you mean 'seeds'"]),
        ("[task]", "[tasks]", ["unknown key 'tasks'", "did you mean 'task'"]),
        (
            "validation",
            "validaton",
            ["unknown key of task 'validaton'", "did you mean 'validation'"],
        ),
        ("epochs = 5", "epoch = 5", ["unknown key of recipe 'epoch'", "did you mean 'epochs'"]),
        ("epochs = 5", 'epochs = "five"', ["epochs must be a whole number", "'five'"]),
        ("at = [", "att = [", ["unknown key of setting 'att'", "did you mean 'at'"]),
        ('at = ["layer3.*"]', 'at = "layer3.*"', ["at must be a list", "'layer3.*'"]),
        (
            "arguments =",
            "argument =",
            ["unknown key of arm.narrow 'argument'", "did you mean 'arguments'"],
        ),
        (', "narrow"]', "]", ["arm narrow is in no setting"]),
        (
            "recipe = { lr",
            "recipe = { rl",
            ["unknown key of arm.narrow.recipe 'rl'", "did you mean 'lr'"],
        ),
        (
            'setting = "late"',
            'setting = "lat"',
            ["unknown setting of primary 'lat'", "did you mean 'late'"],
        ),
        (
            'reference = "none"',
            'refrence = "none"',
            ["unknown key of contrast 'refrence'", "did you mean 'reference'"],
        ),
        ('arm = "narrow"', 'arm = "non_local"', ["a contrast needs two arms", "non_local"]),
        ('name = "blocks"', "", ["plan.toml: name is missing"]),
        ('name = "blocks"', 'name = "../up"', ["name must be letters", "'../up'"]),
        ("seeds = [3, 0, 7]", "seeds = [3, 0, 3]", ["seeds must not repeat", "3"]),
        ("seeds = [3, 0, 7]", "seeds = [3, -1]", ["seeds must be a whole number from 0", "-1"]),
        ("seeds = [3, 0, 7]", "seeds = [3, true]", ["seeds must be a whole number from 0", "True"]),
        ("seeds = [3, 0, 7]", 'seeds = "3"', ["seeds must be a list", "'3'"]),
        ("seeds = [3, 0, 7]", "seeds = []", ["seeds is empty"]),
        ('name = "soon"', 'name = "late"', ["settings must not repeat", "late"]),
        ('"cpsam"]', '"none"]', ["arms must not repeat", "none"]),
        (
            'data = "cifar100"',
            'data_root = "/data"',
            ["data_root belongs to the machine, not to the plan"],
        ),
        ('data = "cifar100"', "data = 100", ["data must be text", "100"]),
        ("[recipe]", 'budget = "hours"\n[recipe]', ["unknown key of task 'budget'"]),
        (
            'name = "blocks"',
            'name = "blocks"\nbudget = "hours"',
            ["unknown budget 'hours'", "epochs, time"],
        ),
        (
            'name = "blocks"',
            'name = "blocks"\nthreads = 0.5',
            ["threads must be a whole number", "0.5"],
        ),
        ("[task]", "[task", ["is not TOML"]),
        (
            'arm = "cpsam"\nreference = "none"\nsetting = "soon"',
            'arm = "narrow"\nreference = "non_local"\nsetting = "late"',
            ["asked twice"],
        ),
    ],
)
def test_a_slip_is_answered_by_name(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in PLAN
    with pytest.raises(UserError) as error:
        plan(tmp_path, PLAN.replace(old, new, 1))
    assert all(word in str(error.value) for word in ["plan.toml", *words]), error.value
    assert error.value.exit_code == 2


def test_a_plan_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml cannot be read"):
        read_plan(tmp_path / "nowhere.toml")


def test_the_plans_of_this_repository_are_read() -> None:
    plans = sorted((ROOT / "docs" / "results").glob("*/plan.toml"))
    assert plans
    for path in plans:
        assert read_plan(path).primary is not None

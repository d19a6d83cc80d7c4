"""Words become the values of flags, and a slip names the nearest flag."""

from pathlib import Path

import pytest

from cpsam.cli import compare, cost, data, eval, study, train
from cpsam.cli import list as list_
from cpsam.cli.parse import split
from cpsam.config.plan_file import read_plan
from cpsam.errors import UserError


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("0,1,2", ["0", "1", "2"]),
        ("none,cpsam", ["none", "cpsam"]),
        ("cpsam:fusion=sum,reduction=8", ["cpsam:fusion=sum,reduction=8"]),
        (
            "cpsam:fusion=sum,reduction=8,none,eca:kernel_size=3,cbam",
            ["cpsam:fusion=sum,reduction=8", "none", "eca:kernel_size=3", "cbam"],
        ),
        ("none,x=1", ["none", "x=1"]),
        ("0,1,", ["0", "1"]),
        ("", []),
    ],
)
def test_a_list_is_split_at_its_commas_and_a_block_keeps_its_arguments(
    words: str, parts: list[str]
) -> None:
    assert split(words) == parts


@pytest.mark.parametrize(
    "words",
    [
        "--attention none cpsam:fusion=sum,reduction=8 --seeds 0 1 2",
        "--attention none,cpsam:fusion=sum,reduction=8 --seeds 0,1,2",
        "--attention=none,cpsam:fusion=sum,reduction=8 --seeds=0,1,2",
        "--attention none, cpsam:fusion=sum,reduction=8 --seeds 0, 1, 2",
        "--seeds 7 --seeds 0,1 2 --attention none cpsam:fusion=sum,reduction=8",
    ],
)
def test_lists_have_spaces_or_commas(words: str) -> None:
    asked = compare.VERB.read(words.split()).comparison
    assert asked.attention == ("none", "cpsam:fusion=sum,reduction=8")
    assert asked.seeds == (0, 1, 2)


def test_each_kind_of_value() -> None:
    words = "--out run --lr=0.5 --epochs 3 --no-augment --sync-bn --no-stream --milestones 0.5,0.7"
    asked = train.VERB.read([*words.split(), "--data_root", "-x", "--warmup-epochs", "1"])
    assert (asked.out, asked.task.data_root) == (Path("run"), Path("-x"))
    assert (asked.recipe.lr, asked.recipe.epochs, asked.recipe.warmup_epochs) == (0.5, 3, 1.0)
    assert (asked.recipe.augment, asked.recipe.sync_bn, asked.task.stream) == (False, True, False)
    assert asked.recipe.milestones == (0.5, 0.7) and asked.task.workers is None
    assert train.VERB.read(["--out", "run"]) == train.TrainRequest(out=Path("run"))


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        (train, "--epoch 3", "unknown option --epoch: did you mean --epochs?"),
        (train, "--learning-rate 3", "unknown option --learning-rate: did you mean --lr?"),
        (train, "--bs 3", "did you mean --batch-size?"),
        (train, "--wd 3", "did you mean --weight-decay?"),
        (train, "--dataset x", "did you mean --data?"),
        (train, "--arch x", "did you mean --model?"),
        (train, "--block x", "did you mean --attention?"),
        (train, "--device cpu", "CUDA_VISIBLE_DEVICES"),
        (train, "--no-epochs", "unknown option --no-epochs: did you mean"),
        (compare, "--seed 0", "did you mean --seeds?"),
        (cost, "--img-size 3", "did you mean --image-size?"),
        (train, "--out", "--out needs a value: --out FOLDER"),
        (train, "--out --seed 1", "--out needs a value"),
        (train, "", "--out FOLDER is missing: the run folder"),
        (eval, "", "FOLDER is missing: a run folder"),
        (study, "", "FILE is missing: the plan, a TOML file"),
        (eval, "a b", "'b' belongs to no option"),
        (train, "run", "'run' belongs to no option"),
        (train, "--out x --json=yes", "--json takes no value; got 'yes'"),
        (compare, "--seeds 0,one", "--seeds must be a whole number; got 'one'"),
        (compare, f"--seeds {'9' * 5000}", "--seeds must be a whole number; got '999"),
        (cost, "-x", "unknown option -x"),
        (train, "-epochs 3", "unknown option -epochs: did you mean --epochs?"),
    ],
)
def test_a_slip_names_what_was_meant(verb, words: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        verb.VERB.read(words.split())
    text = str(refused.value)
    assert message in text and f"cpsam {verb.VERB.name} --help" in text and len(text) < 300


def test_words_without_a_flag_have_their_place() -> None:
    asked = data.VERB.read(["verify", "--json", "photos", "--image-column", "img"])
    assert (asked.action, asked.path, asked.image_column) == ("verify", Path("photos"), "img")
    assert study.VERB.read(["plan.toml"]).executor == "here"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("[recipe]\nlearning_rate = 1", "lr"),
        ("[recipe]\nbs = 64", "batch_size"),
        ("[recipe]\nwd = 0.1", "weight_decay"),
        ("[recipe]\nepoch = 3", "epochs"),
        ("[task]\ndataset = 'digits'", "data"),
        ("[task]\narch = 'resnet20'", "model"),
    ],
)
def test_a_slip_in_a_plan_names_what_was_meant(tmp_path: Path, line: str, meant: str) -> None:
    plan = tmp_path / "plan.toml"
    setting = "\n[[setting]]\nname = 'a'\nat = ['early']\narms = ['none']\n"
    plan.write_text(f"name = 's'\nseeds = [0]\n{line}{setting}")
    with pytest.raises(UserError, match=f"did you mean '{meant}'"):
        read_plan(plan)


def test_a_list_without_a_flag_has_commas_too() -> None:
    assert list_.VERB.read(["data,models", "--json"]).kinds == ("data", "models")

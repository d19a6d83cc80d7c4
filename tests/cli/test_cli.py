"""The command line: what it prints where, its exit codes, and what it does not import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cpsam.cli import VERBS, main
from cpsam.cli.parse import command_line
from cpsam.insert.receptive_field import receptive_field
from cpsam.models import create_model


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        main(list(words))
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["compar"], 2, ["unknown verb 'compar'", "did you mean 'compare'"]),
        (["compare", "--model", "resnet21"], 2, ["unknown model 'resnet21'", "resnet20"]),
        (
            ["compare", "--model", "timm/resnt18"],
            2,
            ["unknown timm model 'resnt18'", "did you mean 'resnet18'"],
        ),
        (
            ["compare", "--model", "torchvision/resnt18"],
            2,
            ["unknown torchvision model", "'resnet18'"],
        ),
        (["compare", "--data", "cifar"], 2, ["unknown data set 'cifar'", "did you mean 'cifar10"]),
        (["compare", "--attention", "none", "cpsm"], 2, ["unknown attention 'cpsm'", "'cpsam'"]),
        (
            ["compare", "--at", "before-lst"],
            2,
            ["unknown place 'before-lst'", "did you mean 'before-last'"],
        ),
        (["compare", "--at", "nl-c4-last"], 2, ["needs blocks at output stride 16", "1, 2, 4"]),
        (["compare", "--seeds", "1", "1"], 2, ["seeds must not repeat", "1"]),
        (["compare", "--attention"], 2, ["attention is empty"]),
        (
            ["compare", "--schedule", "cosin"],
            2,
            ["unknown schedule 'cosin'", "did you mean 'cosine'"],
        ),
        (["compare", "--lr", "-1"], 2, ["lr must be a number above 0", "-1"]),
        (["compare", "--epochs", "few"], 2, ["--epochs", "'few'"]),
        (["compare", "--colour", "red"], 2, ["--colour"]),
        (["cost", "--attention", "none"], 2, ["'none' inserts nothing"]),
        (["cost", "--image-size", "1", "2", "3"], 2, ["--image-size is one or two numbers"]),
        (["field", "--at", "layer9"], 2, ["unknown place 'layer9'", "layer3"]),
        (["eval", "nowhere"], 2, ["nowhere holds no run"]),
        (["list", "placement"], 2, ["unknown kind 'placement'", "did you mean 'placements'"]),
    ],
)
def test_bad_words_answer_in_one_line_with_their_code(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = call(capsys, *words)
    assert (got, out) == (code, ""), err
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert lines[0].startswith("cpsam: ")
    assert all(part in err for part in parts), err
    assert list(tmp_path.iterdir()) == [], "nothing is written for a request that is refused"


@pytest.mark.parametrize(
    "words", [["compare", "--out", ""], ["train", "--data-root", "", "--seed", "0"], ["study", ""]]
)
def test_an_empty_value_is_refused_where_it_would_be_this_folder(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "the value after it is empty" in capsys.readouterr().err


def test_missing_data_is_exit_3_and_names_what_was_looked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = call(
        capsys,
        "compare",
        "--data",
        "cifar100",
        "--data-root",
        str(tmp_path / "nowhere"),
        "--out",
        str(tmp_path / "out"),
    )
    assert code == 3
    assert "nowhere" in err
    assert len(err.splitlines()) == 1


def test_missing_weights_are_exit_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = call(
        capsys,
        "compare",
        "--weights",
        str(tmp_path / "w.safetensors"),
        "--out",
        str(tmp_path / "out"),
    )
    assert code == 3
    assert "w.safetensors" in err


def test_a_run_folder_of_another_configuration_is_refused_and_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["train", "--out", str(run), "--epochs", "1", "--lr", "0.1", "--attention", "none"]
    code, out, err = call(capsys, *words)
    assert code == 0, err
    assert out.startswith("top-1 ")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, _, err = call(capsys, *words[:-1], "norm_only")
    assert code == 2
    assert "attention" in err and "none" in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    code, out, _ = call(capsys, "eval", str(run), "--json")
    assert code == 0
    assert json.loads(out)["top1"] == json.loads((run / "summary.json").read_text())["top1"]


def test_a_diverging_training_is_exit_4(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = call(
        capsys,
        "train",
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "1",
        "--lr",
        "1e30",
        "--attention",
        "none",
    )
    assert code == 4
    assert "step" in err


def test_compare_prints_a_table_and_json_says_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["compare", "--data", "digits", "--attention", "none,cpsam", "--seeds", "3"]
    words += ["--epochs", "1", "--lr", "0.1", "--validation", "0.8"]
    words += ["--out", str(tmp_path)]
    code, table, err = call(capsys, *words)
    assert code == 0, err
    assert "run 2/2  cpsam  seed 3" in err
    code, out, _ = call(capsys, *words, "--json")
    results = json.loads(out)
    assert code == 0
    for arm in results["arms"]:
        row = next(line for line in table.splitlines() if f" {arm['name']} " in line)
        assert f"{100 * arm['top1']['mean']:.2f}" in row
        assert f"{arm['parameters_added']:,}" in row
    assert "near its ceiling" in table
    assert str(tmp_path / "digits-resnet20" / "report.html") in table.replace("\n", "")
    assert "timing" in results and "seconds" not in json.dumps(
        {k: v for k, v in results.items() if k != "timing"}
    )


def test_cost_adds_up_and_agrees_with_the_closed_form(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(
        capsys,
        "cost",
        "--model",
        "resnet20",
        "--attention",
        "non_local",
        "--image-size",
        "24",
        "40",
        "--batch-size",
        "2",
        "--json",
    )
    assert code == 0, err
    cost = json.loads(out)
    assert [place["at"] for place in cost["places"]] == ["layer2.1", "layer3.1"]
    assert [place["features"] for place in cost["places"]] == [[32, 12, 20], [64, 6, 10]]
    for place in cost["places"]:
        channels, height, width = place["features"]
        positions, inner = height * width, channels // 2
        assert place["parameters"] == 2 * channels**2 + 4 * channels + inner
        # Four 1x1 convolutions, two products of all pairs, and one softmax of all pairs.
        assert (
            place["macs"]
            == 4 * channels * inner * positions + 2 * positions**2 * inner + positions**2
        )
    for key in ("parameters", "macs", "saved_bytes"):
        assert cost["total"][key] == sum(place[key] for place in cost["places"])
    places = {place["at"]: place["theoretical"] for place in cost["receptive_fields"]["places"]}
    assert places == {"layer2.1": [29, 29], "layer3.1": [65, 65]}


@pytest.mark.parametrize("columns", [None, "60"])
def test_cost_prints_whole_paths(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    from cpsam.cli import cost

    if columns:
        monkeypatch.setattr("rich.console.Console.is_terminal", True)
        monkeypatch.setenv("COLUMNS", columns)
    path = "backbone.encoder.stages.3.layers.11.downsample.1"
    added = {"parameters": 10**7, "macs": 10**10, "saved_bytes": 2**30}
    cost.print_cost(
        {
            "model": "resnet20",
            "attention": "cpsam",
            "image_shape": (3, 224, 224),
            "batch_size": 8,
            "places": [{"at": path, "features": (2048, 14, 14), **added}],
            "receptive_fields": {
                "image_size": (224, 224),
                "places": [{"at": path, "theoretical": (91, 91), "remote": True}],
            },
            "total": added,
            "host": {"parameters": 10**8, "macs": 10**11},
            "timing": {"host": {"median": 2.0, "n": 10}, "places": {path: {"median": 1.0}}},
        },
        classes=1000,
    )
    out = capsys.readouterr().out
    assert path in out and "1,024.0" in out and "bare network" in out and "…" not in out


def test_list_names_all_blocks_and_placements(capsys: pytest.CaptureFixture[str]) -> None:
    from cpsam.attention import ATTENTION
    from cpsam.insert import PLACEMENTS

    _, out, _ = call(capsys, "list", "--json")
    names = json.loads(out)
    assert set(names["attention"]) == {"none", *ATTENTION}
    assert set(names["placements"]) == set(PLACEMENTS)
    code, out, _ = call(capsys, "list", "placements")
    assert code == 0
    assert "before-last" in out and "conv_control" not in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = call(capsys, verb, "--help")
    assert code == 0
    assert f"cpsam {verb}" in out


def imported(program: str) -> set[str]:
    code = f"import sys; {program}; print(' '.join(sorted(sys.modules)))"
    return set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        .stdout.splitlines()[-1]
        .split()
    )


def test_importing_cpsam_imports_nothing_heavy() -> None:
    assert not imported("import cpsam") & {"torch", "timm", "matplotlib", "onnx", "numpy"}
    assert not imported("import cpsam; cpsam.insert_attention; cpsam.CPSAM") & {
        "timm",
        "matplotlib",
        "onnx",
        "torchvision",
    }


def test_help_is_answered_without_torch() -> None:
    for words in ([], ["compare"], ["train"], ["cost"], ["field"]):
        program = (
            f"import cpsam.cli\ntry: cpsam.cli.main({[*words, '--help']})\nexcept SystemExit:"
            " pass\nimport sys"
        )
        modules = imported(f"exec({program!r})")
        assert not modules & {"torch", "timm", "pyarrow"}, words


def test_the_command_is_told_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["plan.toml", "--json", "--out", "my runs"]
    for program, begins in (
        ("/venv/bin/cpsam", "cpsam"),
        ("/x/cpsam/__main__.py", "cpsam"),
        ("my_study.py", "python my_study.py"),
    ):
        monkeypatch.setattr(sys, "argv", [program, "study", *words])
        assert command_line("study", words) == f"{begins} study plan.toml --out 'my runs'"


def test_field_prints_what_the_library_measures(capsys: pytest.CaptureFixture[str]) -> None:
    fields = receptive_field(create_model("resnet20", 10, seed=0), image_size=(24, 32))
    words = ("field", "--model", "resnet20", "--image-size", "24", "32")
    code, out, err = call(capsys, *words, "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads(json.dumps(fields.to_json()))
    code, out, err = call(capsys, *words)
    assert code == 0, err
    assert "resnet20, random weights, images 3x24x32" in out and "--weights takes" in out
    assert all(place.at in out for place in fields.places)
    assert all(sentence in out for sentence in fields.sentences)


def test_field_measures_a_network_with_the_weights_of_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = create_model("resnet8", 5, seed=4)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    words = ["field", "--model", "resnet8", "--image-size", "24", "--json"]
    code, out, err = call(capsys, *words, "--weights", str(tmp_path / "weights.pt"))
    assert code == 0, err
    with_weights = receptive_field(model, image_size=24).to_json()
    assert json.loads(out) == json.loads(json.dumps(with_weights))
    _, random, _ = call(capsys, *words)
    assert json.loads(random) != json.loads(out), "the weights make a difference"

"""A comparison from end to end on real, small data: what it writes, what it reads back, and that an
interruption changes nothing.
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.compare_command import compare

import cpsam
from cpsam import files
from cpsam.config.recipe import Recipe
from cpsam.config.study import Comparison
from cpsam.config.task import Task
from cpsam.errors import StoppedError, UserError
from cpsam.run import build
from cpsam.run.evaluate_run import evaluate_run
from cpsam.torch_state import thread_count

pytestmark = pytest.mark.xdist_group("compare")  # One process makes the runs that many tests read.

ARMS = ("none", "conv_control", "non_local", "cpsam")


def small(out: Path, **changes: Any) -> Comparison:
    return replace(
        Comparison(
            attention=ARMS, seeds=(0, 4), recipe=Recipe(epochs=1, lr=0.1), out=out, threads=1
        ),
        **changes,
    )


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key != "timing"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, dict[str, Any]]:
    comparison = small(tmp_path_factory.mktemp("runs"))
    return comparison, compare(comparison, command="cpsam compare")


def test_each_arm_has_each_seed_once(done: tuple[Comparison, dict[str, Any]]) -> None:
    comparison, results = done
    assert [arm["name"] for arm in results["arms"]] == list(ARMS)
    assert all([run["seed"] for run in arm["runs"]] == [0, 4] for arm in results["arms"])
    folders = [run["folder"] for arm in results["arms"] for run in arm["runs"]]
    assert len(set(folders)) == 8
    assert all((comparison.folder / folder / "summary.json").is_file() for folder in folders)


def test_the_numbers_of_the_table_are_those_of_the_runs(
    done: tuple[Comparison, dict[str, Any]],
) -> None:
    comparison, results = done
    arms = {arm["name"]: arm for arm in results["arms"]}
    top1 = {
        name: [
            json.loads((comparison.folder / run["folder"] / "summary.json").read_text())["top1"]
            for run in arm["runs"]
        ]
        for name, arm in arms.items()
    }
    for name, values in top1.items():
        assert arms[name]["top1"]["mean"] == pytest.approx(sum(values) / 2)
        assert arms[name]["top1"]["n"] == 2
    gaps = [a - b for a, b in zip(top1["cpsam"], top1["non_local"], strict=True)]
    assert arms["cpsam"]["difference"]["non_local"]["mean"] == pytest.approx(sum(gaps) / 2)
    assert arms["non_local"]["difference"]["non_local"] is None


def test_costs_are_exact_and_the_control_is_matched(
    done: tuple[Comparison, dict[str, Any]],
) -> None:
    arms = {arm["name"]: arm for arm in done[1]["arms"]}
    assert (arms["none"]["parameters_added"], arms["none"]["macs_added"]) == (0, 0)
    # Non-Local with inner width C/2 and a BatchNorm has 2 C^2 + 2.5 C + 2 C parameters, at C = 32
    # and 64.
    assert arms["non_local"]["parameters_added"] == sum(
        2 * c * c + 4 * c + c // 2 for c in (32, 64)
    )
    assert arms["cpsam"]["parameters_added"] < arms["non_local"]["parameters_added"]
    assert (
        abs(arms["conv_control"]["parameters_added"] / arms["cpsam"]["parameters_added"] - 1)
        <= 0.01
    )
    assert arms["cpsam"]["places"] == ["layer2.1", "layer3.1"]


def test_the_same_call_again_reads_and_does_not_train(
    done: tuple[Comparison, dict[str, Any]],
) -> None:
    comparison, results = done
    events: list[dict[str, Any]] = []
    again = compare(comparison, command="cpsam compare", on_event=events.append)
    assert timeless(again) == timeless(results)
    assert all(event["read"] for event in events if event["event"] == "finished")
    assert not any(event["event"] in ("step", "epoch") for event in events)


def test_more_seeds_and_arms_repeat_nothing(done: tuple[Comparison, dict[str, Any]]) -> None:
    comparison, _ = done
    events: list[dict[str, Any]] = []
    more = compare(
        replace(comparison, attention=("none", "norm_only"), seeds=(4, 0)), on_event=events.append
    )
    finished = [event for event in events if event["event"] == "finished"]
    assert [event["read"] for event in finished] == [True, False, True, False]
    assert [run["seed"] for run in more["arms"][0]["runs"]] == [4, 0]


def test_hosts_of_all_arms_start_alike(done: tuple[Comparison, dict[str, Any]]) -> None:
    """Paired seeds: all arms begin as the same function of the image, but for the control blocks
    that they carry.
    """
    from cpsam.data import load_dataset
    from cpsam.run.arm import parse_arm
    from cpsam.run.data import LoadedTask

    dataset, x = load_dataset("digits"), torch.randn(3, 1, 13, 17)
    loaded = LoadedTask(Task(), dataset)
    hosts = [
        loaded.build(parse_arm(name), seed=5).eval()
        for name in ("none", "non_local", "cpsam", "norm_only")
    ]
    with torch.inference_mode():
        logits = [host(x) for host in hosts]
    assert all(torch.equal(logits[0], other) for other in logits[1:])
    assert not torch.equal(logits[0], loaded.build(parse_arm("none"), seed=6).eval()(x))


def test_one_seed_gives_no_interval_and_says_why(
    tmp_path: Path, done: tuple[Comparison, dict[str, Any]]
) -> None:
    results = compare(replace(done[0], seeds=(0,)))
    difference = next(arm for arm in results["arms"] if arm["name"] == "cpsam")["difference"][
        "non_local"
    ]
    assert (difference["n"], difference["low"], difference["high"]) == (1, None, None)
    assert "one seed" in difference["note"]


def test_an_interrupt_keeps_what_is_finished_and_the_same_call_continues(
    tmp_path: Path, done: tuple[Comparison, dict[str, Any]]
) -> None:
    comparison = small(tmp_path)

    def interrupt_in_third_run(event: dict[str, Any]) -> None:
        if event["event"] == "run" and event["index"] == 2:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        compare(comparison, on_event=interrupt_in_third_run)
    assert len(list(comparison.folder.glob("*/summary.json"))) == 2
    assert timeless(compare(comparison, command="cpsam compare")) == timeless(done[1])


def test_a_diverged_run_stays_in_the_table_and_is_not_repeated(tmp_path: Path) -> None:
    comparison = small(
        tmp_path, attention=("none", "cpsam"), seeds=(0,), recipe=Recipe(epochs=1, lr=1e30)
    )
    first = compare(comparison)
    assert [arm["runs"][0]["status"] for arm in first["arms"]] == ["diverged", "diverged"]
    assert (
        "not" in first["arms"][0]["runs"][0]["error"]
        or "nan" in first["arms"][0]["runs"][0]["error"]
    )
    assert first["arms"][0]["top1"]["n"] == 0
    events: list[dict[str, Any]] = []
    assert timeless(compare(comparison, on_event=events.append)) == timeless(first)
    assert not any(event["event"] == "diverged" for event in events)


def test_a_finished_run_is_measured_again_from_its_weights(
    done: tuple[Comparison, dict[str, Any]],
) -> None:
    comparison, results = done
    run = next(arm for arm in results["arms"] if arm["name"] == "cpsam")["runs"][1]
    with thread_count(2):
        measured = evaluate_run(comparison.folder / run["folder"], None, "test", lambda event: None)
        assert torch.get_num_threads() == 2, "the run has 1"
    assert (measured["top1"], measured["n"]) == (run["top1"], results["data"]["test_images"])
    assert measured["loss"] == pytest.approx(run["loss"], rel=1e-6)
    model = cpsam.load_run(str(comparison.folder / run["folder"]), weights="best")
    assert not model.training
    again = cpsam.evaluate(model, "digits", progress=False)
    assert again["top1"] == run["top1"], "the only epoch is the best one"


def test_evaluating_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        evaluate_run(tmp_path, None, "test", lambda event: None)
    with pytest.raises(UserError, match=r"unknown split 'tst': did you mean 'test'"):
        evaluate_run(tmp_path, None, "tst", lambda event: None)


def test_a_control_without_its_width_is_refused_where_nothing_gives_it() -> None:
    from cpsam.run.train_run import train_arm

    with pytest.raises(UserError, match="conv_control needs a value for hidden_channels"):
        train_arm(Task(), "conv_control", Recipe(), 0, 0, Path("never"), lambda event: None)


def test_validation_never_touches_the_test_split(tmp_path: Path) -> None:
    comparison = small(tmp_path, task=Task(validation=0.25), attention=("none",), seeds=(0,))
    results = compare(comparison)
    assert results["data"]["measured_on"] == "validation split"
    from cpsam.data import load_dataset

    whole = load_dataset("digits")
    assert results["data"]["train_images"] + results["data"]["test_images"] == len(whole.train)
    assert results["data"]["fingerprint"] != whole.fingerprint


def test_each_file_of_a_run_is_read_once_and_each_network_built_once_per_arm_and_purpose(
    done: tuple[Comparison, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    no_cached_costs: None,
) -> None:
    """The purposes are the plan, which counts parameters, and the report, which takes the time."""
    comparison, results = done
    read, built = Counter[tuple[str, str]](), Counter[str]()
    open_regular, create_model = files.open_regular, build.create_model

    def counted_read(path: Path) -> Any:
        read[path.parent.name, path.name] += 1
        return open_regular(path)

    def counted_build(*arguments: Any, **options: Any) -> Any:
        built[str(options["attention"])] += 1
        return create_model(*arguments, **options)

    monkeypatch.setattr(files, "open_regular", counted_read)
    monkeypatch.setattr(build, "create_model", counted_build)
    compare(comparison)
    folders = [run["folder"] for arm in results["arms"] for run in arm["runs"]]
    names = ("config.json", "summary.json", "metrics.jsonl", "environment.json")
    assert {read[folder, name] for folder in folders for name in names} == {1}
    assert built["none"] == 2 and built.total() == 2 * len(ARMS)

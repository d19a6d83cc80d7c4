"""`benchmarks/gpu.py` without a GPU: all of it but what the GPU itself computes."""

import json
import subprocess
import sys
from pathlib import Path

import gpu
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from gpu_parts import block_times, cuda_tests, data, runs_at_once
from gpu_parts.part import NotHereError, Part, measure_parts
from gpu_parts.sizes import ON_CPU
from gpu_parts.targets import judge, lines
from support.image_samples import noise, png

TEST_FILE = "cifar100/test-00000-of-00001.parquet"


@pytest.fixture
def part_of_cifar(tmp_path: Path) -> Path:
    """Returns a folder of data sets in which CIFAR-100 has its test split alone."""
    file = tmp_path / "data" / TEST_FILE
    file.parent.mkdir(parents=True)
    images = [{"bytes": png(image)} for image in noise(20, 32, 32, 3)]
    pq.write_table(pa.table({"img": images, "fine_label": np.arange(20)}), file)
    return tmp_path / "data"


def test_a_dry_run_prints_every_part_and_the_size_of_the_data(part_of_cifar, capsys):
    assert gpu.main(["--dry-run", "--data", str(part_of_cifar)]) == 0
    first, count, *parts = capsys.readouterr().out.splitlines()
    assert first.startswith("data: cifar100, part of it, 10,000 images, ")
    assert count.startswith(f"{len(parts)} parts of ") and "500 s" in count
    names = [line.partition(" s  ")[2] for line in parts]
    assert names[:2] == ["pytest -m cuda", "blocks eager bfloat16 8x256x56x56 channels_last"]
    assert {"training non_local 1024", "training none 128 timm", "runs at once 8"} < set(names)
    assert len(names) == len(set(names)) == 1 + 2 * 10 + 10 + 2 * 3 + 2 + 4


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "needs a CUDA GPU" in said.err


def test_a_missing_package_or_file_is_named(monkeypatch, tmp_path, capsys):
    assert gpu.main(["--timm", str(tmp_path / "train.py")]) == 2
    assert "train.py is not there" in capsys.readouterr().err
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "safetensors" else name)
    assert gpu.main(["--dry-run"]) == 2
    assert "needs safetensors" in capsys.readouterr().err


def test_tiny_sizes_on_the_cpu_make_a_record_of_the_same_form(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(block_times, "NAMES", ("cpsam:grouped", "bare:depthwise", "non_local"))
    out, kinds = tmp_path / "gpu.json", ["*bfloat16*channels_last", "training none*"]
    assert gpu.main(["--device", "cpu", "--out", str(out), "--parts", *kinds]) == 0
    record = json.loads(out.read_text())
    assert list(record) == ["schema", "data", "environment", "timing"]
    assert record["data"] == {
        "name": "cued-digits",
        "part": False,
        "file_bytes": 0,
        "note": "no --data FOLDER was given",
    }
    assert record["environment"]["device"] == "cpu"
    timing = record["timing"]
    assert timing["skipped"] == {"training none 16 timm": "no --timm TRAIN.py was given"}
    assert timing["failed"] == {} and timing["budget"] == 500 > timing["seconds"]
    eager, train, scripts, compiled = timing["parts"].values()
    for measured in (eager, compiled):
        assert set(measured["milliseconds"]["forward"]) == set(block_times.NAMES)
        pairs = {"cpsam:grouped / bare:depthwise", "non_local / cpsam:grouped"}
        assert set(measured["ratios"]["training"]) == pairs
    assert compiled["not_compiled"] == [] and compiled["compile_seconds"] > 0
    assert list(train["images_per_s"]) == ["eager"]
    assert train["fastest"] == {"one network": train["images_per_s"]["eager"]}
    ratio = scripts["ratios"]["eager / plain_script_fast"]
    assert 0 < ratio["lower_quartile"] <= ratio["median"] <= ratio["upper_quartile"]
    shown = capsys.readouterr().out
    assert "blocks eager bfloat16 2x16x5x7 channels_last: training: " in shown
    assert "means nothing on cued-digits: fastest, one network >= 150,000" in shown
    assert "not measured: ratios, graph / eager >= 3 in training none 128" in shown
    assert "4 parts measured, 1 skipped, 0 failed" in shown


def test_blocks_that_are_not_compiled_in_time_are_named(monkeypatch):
    monkeypatch.setattr(block_times, "COMPILATION", 0)
    how = {"dtype": "float32", "memory_format": "contiguous", "compiled": True}
    measured = block_times.measure(9, sizes=ON_CPU, device="cpu", shape=ON_CPU.shapes[0], **how)
    assert measured["not_compiled"][:2] == ["cpsam:grouped, training", "cpsam:grouped, forward"]
    assert len(measured["not_compiled"]) == 2 * len(block_times.NAMES)
    assert measured["milliseconds"] == {"training": {}, "forward": {}}


def test_parts_that_fail_or_take_too_long_are_named_and_the_others_go_on():
    now, said = [0.0], []

    def work(seconds):
        def measure(left):
            now[0] += seconds
            return {"summary": "done", "left": left}

        return measure

    def broken(left):
        raise ValueError("first line\nsecond line")

    def not_here(left):
        raise NotHereError("no such script")

    parts = [
        Part("a", 1, broken),
        Part("b", 5, work(7)),
        Part("c", 5, work(1)),
        Part("d", 1, not_here),
        Part("e", 3, work(3)),
    ]
    outcome = measure_parts(parts, 10, lambda part, ended, _: said.append(ended), lambda: now[0])
    assert outcome.parts == {
        "b": {"summary": "done", "left": 10, "seconds": 7},
        "e": {"summary": "done", "left": 3, "seconds": 3},
    }
    late = "takes about 5 s, and 3 s are left"
    assert outcome.skipped == {"c": late, "d": "no such script"}
    assert list(outcome.failed) == ["a"] and "second line" in outcome.failed["a"]
    assert said == [
        "failed: ValueError: first line",
        "done (7 s)",
        f"skipped: {late}",
        "skipped: no such script",
        "done (3 s)",
    ]


def test_a_failed_part_makes_the_exit_code_1(monkeypatch, tmp_path):
    monkeypatch.setattr(block_times, "NAMES", ("no such block",))
    out, kinds = tmp_path / "gpu.json", ["blocks eager bfloat16*channels_last"]
    assert gpu.main(["--device", "cpu", "--out", str(out), "--parts", *kinds]) == 1
    failed = json.loads(out.read_text())["timing"]["failed"]
    assert "no such block" in failed["blocks eager bfloat16 2x16x5x7 channels_last"]


def test_a_part_of_cifar_is_trained_on_and_measured_on(part_of_cifar):
    dataset, found = data.load(data.find(part_of_cifar))
    assert found.part and dataset.name == "cifar100"
    assert len(dataset.train) == len(dataset.evaluation) == 20


def test_files_that_cannot_be_read_give_way_to_strips(part_of_cifar):
    (part_of_cifar / TEST_FILE).write_bytes(b"no parquet")
    dataset, found = data.load(data.find(part_of_cifar))
    assert dataset.name == found.name == "cued-digits" and "cannot be read" in found.note


def test_the_tests_are_counted(monkeypatch):
    report = """<testsuites><testsuite><testcase classname="tests.a" name="one"/>
    <testcase classname="tests.a" name="two"><failure/></testcase>
    <testcase classname="tests.b" name="three"><skipped/></testcase></testsuite></testsuites>"""

    code = 1

    def run(command, **options):
        assert command[4:10] == ["9", sys.executable, "-m", "pytest", "-m", "cuda"]
        Path(command[-2].removeprefix("--junit-xml=")).write_text(report)
        return subprocess.CompletedProcess(command, code, "the output", "")

    monkeypatch.setattr(subprocess, "run", run)
    measured = cuda_tests.measure(9, tests="tests")
    assert measured["summary"] == "1 of 3 tests passed, 1 failed"
    assert measured["failed"] == ["tests.a::two"] and measured["output"] == "the output"
    code = 124  # of `timeout`: the last test was interrupted
    stopped = cuda_tests.measure(9, tests="tests")
    assert stopped["summary"] == "0 of 3 tests passed, 1 failed, then they were stopped"
    assert stopped["failures"] == 2
    report = "<testsuites/>"
    with pytest.raises(NotHereError, match="no test in tests is marked cuda"):
        cuda_tests.measure(9, tests="tests")


def test_runs_at_once_are_compared_with_runs_one_at_a_time(monkeypatch):
    contents = iter((b"one", b"one", b"two"))

    def run(command, **options):
        assert options["env"]["CUDA_VISIBLE_DEVICES"] == "" and options["timeout"] == 9
        Path(command[-1], "weights.safetensors").write_bytes(next(contents))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    weights: dict[int, str] = {}
    same, as_well, other = (
        runs_at_once.measure(9, sizes=ON_CPU, device="cpu", at_once=count, weights=weights)
        for count in (1, 2, 4)
    )
    assert same["same_weights_as"] == [1] and as_well["same_weights_as"] == [1, 2]
    assert other["other_weights_than"] == [1, 2] and other["runs"] == 1


def test_targets_are_judged_and_those_missed_are_printed_with_their_numbers():
    def measured(ratio):
        figures = {"cpsam:sum / bare:sum": {"median": ratio}}
        return {"ratios": {"training": figures}}

    results = {
        "blocks eager a": measured(1.9),
        "blocks eager b": measured(2.5),
        "blocks eager c": measured(2.1),
        "blocks compiled a": measured(1.3),
        "training none 128": {"fastest": {"one network": 9e4, "several at once": 5e5}},
        "pytest -m cuda": {"failures": 1, "seconds": 90},
    }
    shown = lines(judge(results, "cifar100"))
    missed = [line for line in shown if line.startswith("missed")]
    assert missed == [
        "missed: failures <= 0: 1 in pytest -m cuda (1 of 1 parts)",
        "missed: ratios, training, cpsam:sum / bare:sum <= 2: 2.5 in blocks eager b (2 of 3 parts)",
        "missed: fastest, one network >= 150,000: 90000 in training none 128 (1 of 1 parts)",
    ]
    judged = judge(results, "cifar100")
    assert sum(each["met"] is True for each in judged) == 3  # seconds, compiled, at once
    assert shown[-1] == f"3 of {len(judged)} targets were met"

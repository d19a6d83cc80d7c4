"""Images that are read while they are needed: the same bits for any number of processes, and an
error for whatever goes wrong.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.image_samples import noise, png
from support.imagenet_tree import jpeg, size_of, synsets, write_folder, write_shards

from cpsam.config.transform import Transform
from cpsam.data import Dataset, StreamedSplit, eval_batches, hold_out, load_dataset, train_batches
from cpsam.data.loader.workers import IDLE_POOLS
from cpsam.errors import DataError, UserError

STRONG = Transform(rand_augment="rand-m9-mstd0.5", random_erasing=0.5, interpolation="random")
SIZE = 24


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(
        tmp_path_factory.mktemp("tree") / "imagenet", classes=13, train=3, validation=1
    )


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(
        tmp_path_factory.mktemp("hub") / "imagenet",
        classes=13,
        train=3,
        validation=1,
        shards=3,
        rows_a_group=5,
    )


@pytest.fixture(params=["folder", "shards"])
def root(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def load(
    root: Path, *, workers: int = 0, transform: Transform = STRONG, **arguments: object
) -> Dataset:
    return load_dataset(
        "imagenet", root, image_size=SIZE, workers=workers, transform=transform, **arguments
    )


def bits(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[bytes, list[int]]]:
    return [(x.numpy().tobytes(), y.tolist()) for x, y in batches]


def by_sample(dataset: Dataset, **arguments: int) -> set[tuple[bytes, int]]:
    batches = train_batches(dataset, **{"batch_size": 8, "seed": 0, "epoch": 0, **arguments})
    return {
        (image.numpy().tobytes(), int(label))
        for x, y in batches
        for image, label in zip(x, y, strict=True)
    }


def test_both_layouts_hold_the_same_pictures(folder: Path, shards: Path) -> None:
    assert by_sample(load(folder).unaugmented()) == by_sample(load(shards).unaugmented())
    for root in (folder, shards):
        dataset = load(root)
        assert (len(dataset.train), len(dataset.evaluation), dataset.classes) == (
            39,
            13,
            tuple(synsets(13)),
        )
        assert (dataset.image_size, dataset.in_channels, dataset.name) == (
            (SIZE, SIZE),
            3,
            "imagenet",
        )
        assert np.bincount(dataset.train.labels).tolist() == [3] * 13


def test_the_tree_may_be_named_itself_or_by_the_folder_around_it(root: Path) -> None:
    assert load(root.parent).fingerprint == load(root).fingerprint


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_bits_do_not_depend_on_the_processes_that_load(root: Path, workers: int) -> None:
    for epoch in (0, 1):
        alone, together = (
            bits(train_batches(load(root, workers=n), batch_size=8, seed=3, epoch=epoch))
            for n in (0, workers)
        )
        assert alone == together
    alone, together = (
        bits(eval_batches(load(root).evaluation, load(root, workers=n), batch_size=5))
        for n in (0, workers)
    )
    assert alone == together


def test_augmentation_depends_on_seed_epoch_and_sample_alone(root: Path) -> None:
    dataset = load(root)
    first = by_sample(dataset)
    assert by_sample(dataset, batch_size=5) == first
    assert (
        len(by_sample(dataset, epoch=1) & first) < 3 and len(by_sample(dataset, seed=1) & first) < 3
    )


def test_an_epoch_begun_in_the_middle_and_shared_between_processes_is_the_same_epoch(
    root: Path,
) -> None:
    dataset = load(root)
    whole = list(train_batches(dataset, batch_size=10, seed=0, epoch=2))
    assert bits(train_batches(dataset, batch_size=10, seed=0, epoch=2, start=3)) == bits(
        iter(whole[3:])
    )
    parts = [
        train_batches(dataset, batch_size=10, seed=0, epoch=2, rank=rank, world_size=2)
        for rank in (0, 1)
    ]
    for (x, y), *shares in zip(whole, *parts, strict=True):
        assert sorted(y.tolist()) == sorted(torch.cat([labels for _, labels in shares]).tolist())
        assert sorted(x.flatten(1).tolist()) == sorted(
            torch.cat([images for images, _ in shares]).flatten(1).tolist()
        )


def test_the_order_is_drawn_over_all_shards(shards: Path) -> None:
    dataset = load(shards)
    order = np.concatenate([y for _, y in train_batches(dataset, batch_size=13, seed=0, epoch=0)])
    stored = dataset.train.labels.numpy()
    assert sorted(order) == sorted(stored) and order.tolist() != stored.tolist()
    from cpsam.data import train_indices

    first, *_ = train_indices(39, batch_size=13, seed=0, epoch=0)
    assert {dataset.train.source.locate(int(row))[0] for row in first} == set(
        dataset.train.source.tables
    )


def test_draws_of_others_are_not_disturbed(folder: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    wanted = draw()
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    next(train_batches(load(folder), batch_size=8, seed=0, epoch=0))
    assert draw() == wanted


def test_evaluation_sees_the_square_in_the_middle(folder: Path) -> None:
    dataset = load(folder, transform=Transform(test_crop=0.8, interpolation="bicubic"))
    with Image.open(folder / f"val/{synsets(13)[4]}/{synsets(13)[4]}_0.JPEG") as image:
        width, height = image.size
        assert (height, width) == size_of(4) and width < height
        resized = image.resize((30, int(30 * height / width)), Image.Resampling.BICUBIC)
        top = round((resized.height - SIZE) / 2)
        expected = np.asarray(resized.crop((3, top, 3 + SIZE, top + SIZE)))
    x = next(eval_batches(dataset.evaluation, dataset, batch_size=13))[0][4]
    pixels = 255 * (
        x * torch.tensor(dataset.std).view(3, 1, 1) + torch.tensor(dataset.mean).view(3, 1, 1)
    )
    assert torch.allclose(pixels, torch.tensor(expected).permute(2, 0, 1).float(), atol=1e-3)


def test_without_augmentation_training_sees_what_evaluation_sees(root: Path) -> None:
    dataset = load(root)
    seen = {
        (x.numpy().tobytes(), int(y)) for x, y in eval_batches(dataset.train, dataset, batch_size=1)
    }
    assert by_sample(dataset.unaugmented()) == seen


def test_what_is_erased_has_the_mean_colour(folder: Path) -> None:
    plain, erased = (
        load(folder, transform=Transform(random_erasing=probability)) for probability in (0.0, 1.0)
    )
    for (x, _), (y, _) in zip(
        *(train_batches(data, batch_size=39, seed=0, epoch=0) for data in (plain, erased)),
        strict=True,
    ):
        changed = (x != y).any(1)
        assert (changed.flatten(1).float().mean(1) > 0.01).all() and changed.float().mean() < 0.3
        assert y.movedim(1, -1)[changed].abs().max() < 0.01


def test_a_held_out_part_streams_too(root: Path) -> None:
    dataset = load(root)
    part = hold_out(dataset, 13, seed=0)
    assert (len(part.train), len(part.evaluation)) == (26, 13) and isinstance(
        part.evaluation, StreamedSplit
    )
    assert part.train.labels.bincount().tolist() == [2] * 13
    kept, held = (
        by_sample(part.unaugmented()),
        {
            x.numpy().tobytes()
            for xs, _ in eval_batches(part.evaluation, part, batch_size=4)
            for x in xs
        },
    )
    assert len(kept) == 26 and len(held) == 13 and not held & {image for image, _ in kept}


def test_an_epoch_may_be_left_and_two_may_run_at_once(folder: Path) -> None:
    dataset = load(folder, workers=2)
    whole = bits(train_batches(load(folder), batch_size=4, seed=0, epoch=0))
    left = train_batches(dataset, batch_size=8, seed=1, epoch=0)
    next(left)
    del left
    pair = [train_batches(dataset, batch_size=4, seed=0, epoch=0) for _ in range(2)]
    for wanted, *got in zip(whole, *pair, strict=True):
        assert all((x.numpy().tobytes(), y.tolist()) == wanted for x, y in got)


def test_processes_are_used_again(folder: Path) -> None:
    dataset = load(folder, workers=2)
    list(eval_batches(dataset.evaluation, dataset, batch_size=5))
    numbers = [worker.process.pid for pool in IDLE_POOLS[2] for worker in pool.workers]
    list(train_batches(dataset, batch_size=8, seed=0, epoch=0))
    assert [worker.process.pid for pool in IDLE_POOLS[2] for worker in pool.workers] == numbers


@pytest.mark.parametrize("busy", [True, False])
def test_a_killed_process_ends_the_epoch_with_an_error(folder: Path, busy: bool) -> None:
    dataset = load(folder, workers=2)
    batches = train_batches(dataset, batch_size=2, seed=0, epoch=0)
    next(batches)
    if busy:  # its pool is in use and so not among the idle ones
        import cpsam.data.loader.workers as module

        (pool,) = [
            pool for pool in module.POOLS if len(pool.workers) == 2 and pool not in IDLE_POOLS[2]
        ]
    else:
        del batches
        pool = IDLE_POOLS[2][-1]
        batches = train_batches(dataset, batch_size=2, seed=0, epoch=1)
    os.kill(pool.workers[1].process.pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(
        DataError,
        match=(
            r"a process that loads images was killed by SIGKILL, perhaps for want of memory; fewer"
            r" `workers`"
        ),
    ):
        list(batches)
    assert time.monotonic() - started < 10
    assert pool not in IDLE_POOLS[2]
    assert len(list(train_batches(dataset, batch_size=8, seed=0, epoch=0))) == 5, (
        "the next epoch gets new processes"
    )


def test_signals_to_all_processes_of_a_job_do_not_end_those_that_load(folder: Path) -> None:
    batches = train_batches(load(folder, workers=1), batch_size=2, seed=0, epoch=0)
    next(batches)
    import cpsam.data.loader.workers as module

    for pool in module.POOLS:
        for worker in pool.workers:
            os.kill(worker.process.pid, signal.SIGTERM)
            os.kill(worker.process.pid, signal.SIGINT)
    # what they were forked from is one of the job's processes too
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGTERM)
    assert len(list(batches)) == 18
    assert len(list(train_batches(load(folder, workers=3), batch_size=2, seed=0, epoch=0))) == 19, (
        "others can still be started"
    )


UNDER_FIRE = """
import os, signal, sys, threading, time
from pathlib import Path
from cpsam.data import load_dataset, train_batches

heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
dataset = load_dataset("imagenet", Path(sys.argv[1]), image_size=8, workers=2)

def fire():
    while True:
        os.killpg(0, signal.SIGTERM)
        time.sleep(0.02)

threading.Thread(target=fire, daemon=True).start()
print(len(list(train_batches(dataset, batch_size=2, seed=0, epoch=0))), len(heard) > 0)
"""


def test_signals_while_processes_start_do_not_end_them(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", UNDER_FIRE, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
    )
    assert (ended.stdout, ended.returncode) == ("19 True\n", 0), ended.stderr


KILLED = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from cpsam.data import load_dataset, train_batches

dataset = load_dataset("imagenet", Path(sys.argv[1]), image_size=8, workers=1)
batches = train_batches(dataset, batch_size=2, seed=0, epoch=0)
next(batches)
for number in (signal.SIGTERM, signal.SIGUSR1):
    process = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(60,))
    process.start()
    time.sleep(0.3)
    os.kill(process.pid, number)
    process.join()
    print(process.exitcode, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def killed(folder: Path) -> subprocess.CompletedProcess[str]:
    """A program that loads images, starts processes of its own, and is killed."""
    # The pipe ends when the last process has closed it, the one that forks included.
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True, timeout=60
    )


def test_processes_of_others_hear_signals_as_ever(
    killed: subprocess.CompletedProcess[str],
) -> None:
    assert killed.stdout.split() == [str(-signal.SIGTERM), str(-signal.SIGUSR1)], killed.stderr


def test_no_process_outlives_a_training_that_is_killed(
    killed: subprocess.CompletedProcess[str],
) -> None:
    assert killed.returncode == -signal.SIGKILL


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_an_error_with_its_path(tmp_path: Path, workers: int) -> None:
    root = write_folder(tmp_path / "imagenet", classes=3, train=2, validation=1)
    bad = root / "train" / synsets(3)[1] / f"{synsets(3)[1]}_1.JPEG"
    bad.write_bytes(bad.read_bytes()[:-300])
    dataset = load(root, workers=workers)
    with pytest.raises(DataError, match=rf"{bad}: not an image that can be decoded \(.*truncated"):
        list(train_batches(dataset, batch_size=2, seed=0, epoch=0))
    bad.unlink()
    with pytest.raises(DataError, match=rf"{bad}: cannot be read \(No such file"):
        list(train_batches(dataset, batch_size=2, seed=0, epoch=0))
    assert len(list(eval_batches(dataset.evaluation, dataset, batch_size=2))) == 2, (
        "the processes live on"
    )


def rewrite(path: Path, row: int, image: bytes | None = b"", label: int | None = 0) -> None:
    """Replace one row of a shard."""
    table = pq.read_table(path)
    columns = table.to_pydict()
    columns["image"][row] = None if image is None else {"bytes": image, "path": None}
    columns["label"][row] = label
    import pyarrow as pa

    pq.write_table(pa.table(columns, schema=table.schema), path, row_group_size=4)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_row_is_an_error_with_its_shard(tmp_path: Path, workers: int) -> None:
    root = write_shards(tmp_path / "imagenet", classes=4, train=3, validation=1, shards=2)
    path = root / "data/train-00001-of-00002.parquet"
    rewrite(path, 4, jpeg(noise(9, 9, 3), 50, 60)[:-100], 1)
    with pytest.raises(DataError, match=rf"{path}, row 4: not an image that can be decoded"):
        list(train_batches(load(root, workers=workers), batch_size=3, seed=0, epoch=0))
    rewrite(path, 4, None, 1)
    with pytest.raises(DataError, match=rf"{path}, row 4: no image"):
        list(train_batches(load(root, workers=workers), batch_size=3, seed=0, epoch=0))


def test_bad_files_that_are_named_are_left_out(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "f", classes=3, train=3, validation=1)
    name = f"train/{synsets(3)[1]}/{synsets(3)[1]}_1.JPEG"
    (root / name).write_bytes(b"")
    dataset = load(root, skip={name})
    assert len(dataset.train) == 8 and dataset.skipped == (name,)
    assert len(by_sample(dataset)) == 8
    root = write_shards(tmp_path / "s", classes=4, train=3, validation=1, shards=2)
    rewrite(root / "data/train-00001-of-00002.parquet", 4, b"x", 1)
    dataset = load(root, skip={"train-00001-of-00002.parquet, row 4"})
    assert (
        len(dataset.train) == 11 and len(by_sample(dataset)) == 11 and len(load(root).train) == 12
    )
    assert load(root).fingerprint != dataset.fingerprint
    for strange in (
        "train-00001-of-00002.parquet, row 6",
        "train-00007-of-00002.parquet, row 0",
        "x",
    ):
        with pytest.raises(DataError, match=f"{strange}: to be left out, but it is not there"):
            load(root, skip={strange})


def test_loading_reads_no_image_and_unpacks_each_shard_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    load(root, progress=lambda *event: told.append(event))
    assert told == (
        [("unpacking shards", done, 4) for done in (1, 2, 3, 4)]
        if root.joinpath("data").exists()
        else []
    )
    before = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")}
    monkeypatch.setattr("cpsam.data.storage.unpacked_shard.write_table", None)
    monkeypatch.setattr("cpsam.data.loader.batch_request.read", None)
    load(root)
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")} == before


def test_a_changed_shard_is_unpacked_again(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "imagenet", classes=4, train=3, validation=1, shards=2)
    before = by_sample(load(root).unaugmented())
    rewrite(root / "data/train-00001-of-00002.parquet", 3, png(noise(40, 40, 3)), 2)
    assert len(by_sample(load(root).unaugmented()) - before) == 1


def test_shards_without_names_have_as_many_classes_as_labels(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "imagenet", classes=4, train=3, validation=1, shards=2)
    for path in (root / "data").iterdir():
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata(None), path)
    assert load(root).classes == ("0", "1", "2", "3")


def test_what_is_wrong_with_a_set_is_said(tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        return write_shards(tmp_path / name, classes=4, train=3, validation=1, shards=3)

    with pytest.raises(
        DataError,
        match=r"no ImageNet in .*nowhere: name the folder with train/CLASS/ and val/CLASS/",
    ):
        load(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match="no folder with ImageNet given; name it with `root` or CPSAM_DATA"
    ):
        load_dataset("imagenet")
    (fresh("gap") / "data/train-00001-of-00003.parquet").unlink()
    with pytest.raises(
        DataError,
        match=(
            r"train-00000-of-00003\.parquet: one of 3 files by its name, but 2 train files are in"
        ),
    ):
        load(tmp_path / "gap")
    (fresh("no val") / "data/validation-00000-of-00001.parquet").unlink()
    with pytest.raises(
        DataError, match=r"no validation-\*\.parquet in .*no val or .*no val/data; name the folder"
    ):
        load(tmp_path / "no val")
    rewrite(fresh("label") / "data/train-00002-of-00003.parquet", 1, b"x", 4)
    with pytest.raises(
        DataError,
        match=r"train-00002-of-00003\.parquet, row 1: label 4 is out of range, it must be 0 to 3",
    ):
        load(tmp_path / "label")
    (fresh("damaged") / "data/train-00001-of-00003.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        DataError, match=r"train-00001-of-00003\.parquet: cannot be read as parquet"
    ):
        load(tmp_path / "damaged")
    tree = write_folder(tmp_path / "tree", classes=3, train=2, validation=1)
    (tree / "val").rename(tree / ".val")
    with pytest.raises(DataError, match="tree: no val/ beside train/"):
        load(tree)


def test_a_damaged_table_of_the_cache_is_named(shards: Path, own_cache: Path) -> None:
    dataset = load(shards)
    for table in own_cache.rglob("*.arrow"):
        table.write_bytes(table.read_bytes()[:-50])
    with pytest.raises(
        DataError, match=r"\.arrow: cannot be read \(.*\); delete it, and it is made again"
    ):
        list(eval_batches(dataset.evaluation, dataset, batch_size=2))


def test_a_folder_is_streamed_when_it_is_large_or_when_asked_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = load_dataset("folder", folder, image_size=SIZE)
    assert not isinstance(held.train, StreamedSplit)
    asked = load_dataset("folder", folder, image_size=SIZE, stream=True, workers=0)
    monkeypatch.setattr("cpsam.data.sets.folder.STREAM_ABOVE_BYTES", 52 * SIZE * SIZE * 3 - 1)
    large = load_dataset("folder", folder, image_size=SIZE, workers=0)
    assert isinstance(large.train, StreamedSplit) and large.fingerprint == asked.fingerprint
    assert by_sample(large) == by_sample(asked)
    assert not isinstance(
        load_dataset("folder", folder, image_size=SIZE, stream=False).train, StreamedSplit
    )


def test_arguments_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="imagenet is always streamed"):
        load(folder, stream=False)
    with pytest.raises(
        UserError, match="a transform is for streamed ones: ask for them with stream=True"
    ):
        load_dataset("folder", folder, image_size=SIZE, transform=STRONG)
    with pytest.raises(
        UserError, match="transform is for folder and imagenet, digits is held as bytes"
    ):
        load_dataset("digits", transform=STRONG)
    with pytest.raises(UserError, match="workers must be at least 0; got -1"):
        load(folder, workers=-1)
    with pytest.raises(UserError, match="timm does not understand rand_augment 'rand-x9'"):
        load(folder, transform=Transform(rand_augment="rand-x9"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_crop": 0}, "min_crop must be a number above 0 and at most 1; got 0"),
        ({"test_crop": 1.5}, "test_crop must be a number above 0 and at most 1; got 1.5"),
        ({"random_erasing": -0.1}, "random_erasing must be a number from 0 to 1; got -0.1"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic': did you mean 'bicubic'"),
        (
            {"rand_augment": "m9"},
            "rand_augment must be in timm's words, as in rand-m9-mstd0.5; got 'm9'",
        ),
        (
            {"rand_augment": "rand-m9", "color_jitter": 0.4},
            "rand_augment takes the place of color_jitter",
        ),
    ],
)
def test_transforms_that_cannot_be_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Transform(**arguments)

"""Batches: what is in them, in which order, and what they do not depend on."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cpsam.data import Dataset, eval_batches, normalise, train_batches, train_indices
from cpsam.data.batches import rank_slice
from cpsam.errors import UserError

Make = Callable[..., Dataset]


def epoch_by_sample(dataset: Dataset, batch_size: int, **arguments: int) -> dict[int, bytes]:
    indices = train_indices(len(dataset.train), batch_size=batch_size, **arguments)
    batches = list(train_batches(dataset, batch_size=batch_size, **arguments))
    assert [len(samples) for samples in indices] == [len(y) for _, y in batches]
    return {
        int(i): x[row].numpy().tobytes()
        for samples, (x, _) in zip(indices, batches, strict=True)
        for row, i in enumerate(samples)
    }


@pytest.mark.parametrize(("count", "batch_size"), [(37, 8), (40, 8), (37, 37), (37, 100), (2, 2)])
def test_every_sample_comes_once_an_epoch(count: int, batch_size: int) -> None:
    batches = train_indices(count, batch_size=batch_size, seed=1, epoch=3)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert sorted(np.concatenate(batches)) == list(range(count))


def test_only_a_last_batch_of_one_image_is_left_out() -> None:
    left_out = [
        set(range(33))
        - set(np.concatenate(train_indices(33, batch_size=8, seed=0, epoch=epoch)).tolist())
        for epoch in range(6)
    ]
    assert all(len(missing) == 1 for missing in left_out)
    assert len(set.union(*left_out)) > 1  # another one in another epoch


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(batch_size: int, seed: int, epoch: int) -> list[int]:
        return np.concatenate(
            train_indices(60, batch_size=batch_size, seed=seed, epoch=epoch)
        ).tolist()

    assert order(7, 0, 5) == order(20, 0, 5)
    assert (
        len({tuple(order(7, seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))}) == 4
    )


def test_images_and_labels_stay_together(make_dataset: Make) -> None:
    dataset = make_dataset(padding=0, flip=False, labels=[i % 4 for i in range(37)])
    samples = np.concatenate(train_indices(37, batch_size=8, seed=0, epoch=2))
    x, y = (
        torch.cat(parts)
        for parts in zip(*train_batches(dataset, batch_size=8, seed=0, epoch=2), strict=True)
    )
    assert torch.equal(y, dataset.train.labels[samples]) and y.dtype == torch.int64
    assert torch.equal(x, normalise(dataset.train.pixels(samples), dataset))


def test_a_sample_is_augmented_alike_in_batches_of_any_size(make_dataset: Make) -> None:
    dataset = make_dataset()
    whole = epoch_by_sample(dataset, 37, seed=4, epoch=6)
    assert epoch_by_sample(dataset, 5, seed=4, epoch=6) == whole
    other = epoch_by_sample(dataset, 37, seed=4, epoch=7)
    assert sum(other[i] != whole[i] for i in whole) > 25


def test_the_same_seed_and_epoch_give_the_same_bytes_whatever_went_before(
    make_dataset: Make,
) -> None:
    dataset = make_dataset()
    first = epoch_by_sample(dataset, 8, seed=0, epoch=1)
    list(train_batches(dataset, batch_size=8, seed=0, epoch=0))
    np.random.rand(3)  # global state must not matter
    torch.rand(3)
    assert epoch_by_sample(dataset, 8, seed=0, epoch=1) == first


def test_an_epoch_begun_in_the_middle_goes_on_with_the_same_bits(make_dataset: Make) -> None:
    dataset = make_dataset()
    whole = list(train_batches(dataset, batch_size=8, seed=3, epoch=1))
    for start in (1, 4, 5):
        rest = list(train_batches(dataset, batch_size=8, seed=3, epoch=1, start=start))
        assert len(rest) == 5 - start
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(whole[start:], rest, strict=True))


@pytest.mark.parametrize(
    ("count", "world_size"), [(12, 1), (12, 3), (13, 3), (15, 7), (16, 8), (9, 2), (143, 64)]
)
def test_processes_share_a_batch_in_mirrored_pairs(count: int, world_size: int) -> None:
    batch = np.random.default_rng(0).permutation(1000)[:count]
    place = {int(sample): position for position, sample in enumerate(batch)}
    parts = [rank_slice(batch, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(parts)) == sorted(batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 2 and min(map(len, parts)) >= 2
    for part in parts:
        positions = [place[int(sample)] for sample in part]
        assert positions == sorted(positions)
        assert [count - 1 - position for position in positions] == positions[::-1]


def test_the_parts_of_all_processes_are_the_batch_of_one(make_dataset: Make) -> None:
    dataset = make_dataset()  # 37 images: four batches of 8, and one of 5
    whole = list(train_batches(dataset, batch_size=8, seed=3, epoch=1))
    parts = [
        list(
            train_batches(dataset, batch_size=8, seed=3, epoch=1, start=1, rank=rank, world_size=2)
        )
        for rank in (0, 1)
    ]
    for (x, y), *pair in zip(whole[1:], *parts, strict=True):
        mine, here = torch.cat([x for x, _ in pair]), torch.cat([y for _, y in pair])
        assert sorted(x.flatten(1).tolist()) == sorted(mine.flatten(1).tolist()) and sorted(
            y.tolist()
        ) == sorted(here.tolist())
        mixed = torch.cat([x + 0.3 * x.flip(0) for x, _ in pair])
        assert sorted((x + 0.3 * x.flip(0)).flatten(1).tolist()) == sorted(
            mixed.flatten(1).tolist()
        )


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_evaluation_reads_every_image_once_over_all_processes(
    make_dataset: Make, world_size: int
) -> None:
    dataset = make_dataset(labels=list(range(37)))
    batches = [
        y.tolist()
        for rank in range(world_size)
        for _, y in eval_batches(
            dataset.evaluation, dataset, batch_size=6, rank=rank, world_size=world_size
        )
    ]
    assert sorted(batches) == [list(range(start, min(start + 6, 37))) for start in range(0, 37, 6)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [True, False])
def test_normalisation_can_be_undone(
    make_dataset: Make, channels: int, channels_last: bool
) -> None:
    dataset = make_dataset(channels=channels)
    batches = list(
        eval_batches(dataset.evaluation, dataset, batch_size=10, channels_last=channels_last)
    )
    assert [len(y) for _, y in batches] == [10, 10, 10, 7]
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    assert x.dtype == torch.float32 and x.shape == (37, channels, 7, 5)
    assert torch.equal(y, dataset.evaluation.labels)
    mean, std = torch.tensor(dataset.mean).view(-1, 1, 1), torch.tensor(dataset.std).view(-1, 1, 1)
    assert torch.allclose(
        255 * (x * std + mean), dataset.evaluation.images.to(torch.float32), atol=1e-3
    )


def test_normalised_by_its_own_moments_a_train_split_has_mean_0_and_variance_1(
    small_cifar: object,
) -> None:
    from cpsam.data import load_dataset

    dataset = load_dataset("cifar100", str(small_cifar))
    x = torch.cat([x for x, _ in eval_batches(dataset.train, dataset, batch_size=4)])
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format_is_as_asked_and_changes_no_value(
    make_dataset: Make, channels_last: bool
) -> None:
    dataset = make_dataset()
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    for x, _ in train_batches(dataset, batch_size=8, seed=0, epoch=0, channels_last=channels_last):
        assert x.is_contiguous(memory_format=wanted)
    both = [
        next(train_batches(dataset, batch_size=8, seed=0, epoch=0, channels_last=last))[0]
        for last in (True, False)
    ]
    assert torch.equal(*both)


def test_black_is_what_surrounds_an_image(make_dataset: Make) -> None:
    dataset = make_dataset(count=2)
    images = dataset.train.pixels(slice(None)) * 0
    expected = (
        (-torch.tensor(dataset.mean) / torch.tensor(dataset.std)).view(3, 1, 1).expand(2, 3, 7, 5)
    )
    assert torch.allclose(normalise(images, dataset), expected)


def test_another_device_gets_bytes_and_the_same_shape(make_dataset: Make) -> None:
    dataset = make_dataset()
    x, y = next(train_batches(dataset, batch_size=8, seed=0, epoch=0, device="meta"))
    assert (
        x.shape == (8, 3, 7, 5)
        and x.dtype == torch.float32
        and x.device.type == y.device.type == "meta"
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gets_the_bits_of_the_cpu(make_dataset: Make) -> None:
    dataset = make_dataset()
    for here, there in zip(
        *(
            train_batches(dataset, batch_size=8, seed=0, epoch=0, device=name)
            for name in ("cpu", "cuda")
        ),
        strict=True,
    ):
        assert torch.equal(here[0], there[0].cpu()) and torch.equal(here[1], there[1].cpu())


def test_bad_sizes_are_refused_before_the_first_batch(make_dataset: Make) -> None:
    dataset = make_dataset()
    with pytest.raises(UserError, match=r"batch_size must be at least 2.*BatchNorm.*it is 1"):
        train_batches(dataset, batch_size=1, seed=0, epoch=0)
    with pytest.raises(UserError, match="batch_size must be at least 1, not 0"):
        eval_batches(dataset.evaluation, dataset, batch_size=0)
    with pytest.raises(
        UserError,
        match=(r"a batch of 5 images is too small for 3 processes .* choose another batch_size"),
    ):
        train_batches(dataset, batch_size=8, seed=0, epoch=0, world_size=3)  # the last one of 37
    with pytest.raises(ValueError, match=r"rank must be from 0 to below world_size \(2\), not 2"):
        train_batches(dataset, batch_size=8, seed=0, epoch=0, rank=2, world_size=2)
    with pytest.raises(UserError, match="at least 2 images, not 1"):
        train_batches(make_dataset(count=1), batch_size=4, seed=0, epoch=0)

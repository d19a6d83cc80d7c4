"""Mixing is a pure function of (seed, step), the same for any number of processes."""

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor

from cpsam.data.batches import rank_slice
from cpsam.train.mix import mix_batch


def batch(count: int = 9) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(count)
    return torch.rand(count, 3, 8, 11, generator=draw, dtype=torch.float64), torch.randint(
        0, 5, (count,), generator=draw
    )


@pytest.mark.parametrize("step", range(20))
def test_mixup_equals_the_one_of_timm_at_the_same_share(step: int) -> None:
    x, y = batch(8)
    mixed, targets = mix_batch(x, y, 5, mixup=0.4, cutmix=0.0, seed=3, step=step)
    other = next(j for j in range(8) if y[j] != y[7 - j])
    rank_slice = float(targets[other, y[other]])
    theirs = Mixup(mixup_alpha=0.4, num_classes=5)
    theirs._params_per_batch = lambda: (rank_slice, False)
    expected, _ = theirs(x.clone(), y)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(targets, mixup_target(y, 5, rank_slice).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("step", range(20))
def test_cutmix_takes_a_box_and_its_share_of_the_target(step: int) -> None:
    x, y = batch()
    mixed, targets = mix_batch(x, y, 5, mixup=0.0, cutmix=1.0, seed=3, step=step)
    taken = (mixed != x).any(1)  # (N, H, W)
    taken[4] = taken[0]  # the middle one of an odd batch is mixed with itself
    rows, columns = taken[0].any(1), taken[0].any(0)
    assert (taken == (rows[:, None] & columns)).all(), "one box, the same for all"
    assert all(torch.equal(mixed[i][:, taken[0]], x[8 - i][:, taken[0]]) for i in range(9))
    area = taken[0].double().mean()
    one_hot = torch.nn.functional.one_hot(y, 5).double()
    torch.testing.assert_close(targets, one_hot * (1 - area) + one_hot.flip(0) * area)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
@pytest.mark.parametrize("processes", [2, 3])
def test_parts_of_a_batch_mix_as_the_whole(mixup: float, cutmix: float, processes: int) -> None:
    x, y = batch(13)
    for step in range(8):
        whole = mix_batch(x, y, 5, mixup=mixup, cutmix=cutmix, seed=1, step=step)
        for rank in range(processes):
            mine = torch.from_numpy(rank_slice(np.arange(13), rank, processes))
            part = mix_batch(x[mine], y[mine], 5, mixup=mixup, cutmix=cutmix, seed=1, step=step)
            assert all(
                torch.equal(ours, all_of_it[mine])
                for ours, all_of_it in zip(part, whole, strict=True)
            )


def test_it_depends_on_seed_and_step_alone_and_keeps_the_input() -> None:
    x, y = batch()
    before = x.clone()
    results = []
    for index, (seed, step) in enumerate([(1, 2), (1, 2), (2, 2), (1, 3)]):
        torch.manual_seed(index)
        np.random.seed(index)
        results.append(mix_batch(x, y, 5, mixup=0.5, cutmix=0.5, seed=seed, step=step)[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2]) and not torch.equal(results[0], results[3])
    assert torch.equal(x, before)


def test_half_of_the_steps_cut_where_both_are_wanted_and_shares_are_those_of_beta() -> None:
    x, y = torch.rand(2, 1, 32, 32), torch.tensor([0, 1])
    cuts, shares = 0, []
    for step in range(400):
        mixed, targets = mix_batch(x, y, 2, mixup=1.0, cutmix=1.0, seed=0, step=step)
        cut = bool(((mixed == x) | (mixed == x.flip(0))).all())
        cuts += cut
        if not cut:
            shares.append(float(targets[0, 0]))
    assert 160 < cuts < 240
    # uniform
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08) and np.std(shares) == pytest.approx(
        12**-0.5, abs=0.04
    )


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_the_memory_format_is_kept(cutmix: float) -> None:
    x, y = batch()
    mixed, _ = mix_batch(
        x.contiguous(memory_format=torch.channels_last),
        y,
        5,
        mixup=0.5,
        cutmix=cutmix,
        seed=0,
        step=1,
    )
    assert mixed.is_contiguous(memory_format=torch.channels_last)

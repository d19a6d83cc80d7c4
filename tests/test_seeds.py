import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpsam.seeds import derive_seed, generator

SEEDS = st.integers(0, 2**40)
PURPOSES = st.lists(st.integers(0, 2**33) | st.text(max_size=6), max_size=4).map(tuple)


@settings(max_examples=100, deadline=None)
@given(SEEDS, PURPOSES)
def test_a_seed_has_63_bits_and_is_the_same_again(seed, purpose):
    assert 0 <= derive_seed(seed, *purpose) < 2**63
    assert derive_seed(seed, *purpose) == derive_seed(seed, *purpose)


@settings(max_examples=100, deadline=None)
@given(st.tuples(SEEDS, PURPOSES), st.tuples(SEEDS, PURPOSES))
def test_different_purposes_have_different_seeds(one, other):
    if one != other:
        assert derive_seed(one[0], *one[1]) != derive_seed(other[0], *other[1])


@pytest.mark.parametrize(
    "one, other",
    [
        ((1, 2), (2, 1)),
        ((0, "order", 3), (3, "order", 0)),
        ((0, "order", 3), (0, 3, "order")),
        ((0, "ab", "c"), (0, "a", "bc")),
        ((0, "1"), (0, 1)),
        ((0,), (0, 0)),
        ((0, "order"), (0, "order", 0)),
        ((2**32,), (0, 1)),
        ((2**32,), (0, 0)),
        ((1, 2**32), (1, 0, 1)),
        ((5, 2**32), (5, 0, 1)),
    ],
    ids=str,
)
def test_order_kind_and_number_of_the_parts_all_count(one, other):
    assert derive_seed(*one) != derive_seed(*other)


def test_sums_do_not_collide():
    """(seed 1, epoch 2) is not (seed 2, epoch 1), for a whole grid."""
    seeds = {derive_seed(seed, "epoch", epoch) for seed in range(40) for epoch in range(50)}
    assert len(seeds) == 40 * 50


def test_neighbouring_seeds_share_no_bits():
    bits = np.array(
        [[derive_seed(seed, "order") >> bit & 1 for bit in range(63)] for seed in range(400)]
    )
    assert np.abs(bits.mean(0) - 0.5).max() < 0.15  # six standard deviations
    flips = (bits[1:] != bits[:-1]).mean()
    assert abs(flips - 0.5) < 0.02


@pytest.mark.parametrize("parts", [(-1,), (0, -2), (0, "order", -3)], ids=str)
def test_negative_numbers_are_refused(parts):
    with pytest.raises(ValueError, match="non-negative"):
        derive_seed(*parts)


def test_values_are_those_of_every_run_before():
    """Written down: another value would break the promise that a run can be repeated."""
    assert derive_seed(0) == PINNED["seed"]
    assert derive_seed(7, "order", 3) == PINNED["order"]
    assert generator(7, "order", 3).integers(1000, size=4).tolist() == PINNED["draw"]


PINNED = {"seed": 5064105442291832971, "order": 6729967001812344053, "draw": [698, 482, 958, 315]}


def test_generators_of_one_purpose_draw_the_same_and_of_two_purposes_do_not():
    first, again, other = (
        generator(3, "augment", 5),
        generator(3, "augment", 5),
        generator(3, "augment", 6),
    )
    draw = first.standard_normal(100)
    assert np.array_equal(draw, again.standard_normal(100))
    assert abs(np.corrcoef(draw, other.standard_normal(100))[0, 1]) < 0.5


def test_nothing_global_moves():
    state = np.random.get_state()
    generator(0, "order").random(3)
    assert all(np.array_equal(a, b) for a, b in zip(state, np.random.get_state(), strict=True))

"""Simulates studies whose true differences are known.

The rates say how often the intervals cover the truth, and how often a test finds a difference that
is not there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from cpsam.statistics import step_down, t_test

ALPHA = 0.05
SEED_SD, NOISE_SD = 0.004, 0.003  # of top-1: what arms of a seed share, and what they do not
IMAGES, TOP1 = 5000, 0.6

Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
# What a difference of two arms of a seed may be made of, beside the truth: each has a mean of zero.
WORLDS: dict[str, Noise] = {
    "normal": lambda draw, shape: draw.normal(0, NOISE_SD, shape),
    "heavy tails": lambda draw, shape: NOISE_SD * draw.standard_t(3, shape),
    "counts of 5,000 images": lambda draw, shape: (
        draw.binomial(IMAGES, TOP1, shape) / IMAGES - TOP1
    ),
}


@dataclass(frozen=True)
class Rates:
    """Fractions of simulated studies.

    Attributes:
        coverage: The 95 % interval has the true difference in it.
        t_test: The t-test at 5 % finds a difference where there is none.
        sign_flip: The exact sign-flip test at 5 % finds a difference where there is none.
        family: Holm's adjusted p finds a difference in any of the contrasts that have none.
    """

    coverage: float
    t_test: float
    sign_flip: float
    family: float


def simulate(
    world: str, n: int, *, studies: int = 10_000, contrasts: int = 5, false: int = 2, seed: int = 0
) -> Rates:
    """Returns the rates of a world, an entry of `WORLDS`.

    Args:
        world: What the values are made of.
        n: Paired seeds.
        studies: How many studies.
        contrasts: Of a study, all with its first arm, so that they depend on each other.
        false: How many of these have a difference in truth; `family` is of the others.
        seed: Of the simulation.
    """
    draw = np.random.default_rng([seed, n, list(WORLDS).index(world)])
    arms = draw.normal(0, SEED_SD, (studies, 1, n)) + WORLDS[world](
        draw, (studies, contrasts + 1, n)
    )
    arms[:, 1 : false + 1] -= 2 * NOISE_SD
    differences = arms[:, :1] - arms[:, 1:]  # (studies, contrasts, n)
    null = differences[:, false:]
    _, half_width, p = t_test(differences)
    first = null[:, 0]
    covered = np.abs(first.mean(axis=-1)) <= half_width[:, false]
    signs = np.array(list(product((1.0, -1.0), repeat=n)))  # (2^n, n)
    sums = np.abs(first @ signs.T)
    flips = (sums >= sums[:, :1] - 1e-12).mean(axis=1)
    family = (step_down(p)[:, false:] < ALPHA).any(axis=1)
    return Rates(
        float(covered.mean()),
        float((p[:, false] < ALPHA).mean()),
        float((flips < ALPHA).mean()),
        float(family.mean()),
    )

"""Mixup and CutMix within a batch.

Each image is mixed with its mirror in the batch, the first with the last.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cpsam.seeds import generator

CUTMIX_PROBABILITY = 0.5  # per step, if the recipe has both


def mix_batch(
    x: Tensor, y: Tensor, num_classes: int, *, mixup: float, cutmix: float, seed: int, step: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mixes a batch with itself in reverse order.

    One factor mixes all images. It depends on the seed and the step alone.

    A process may have only a part of a batch. If it has each image together with its mirror, at
    mirrored positions, it gets the same pictures as one process with the whole batch.

    Args:
        x: Images.
        y: Labels, int64.
        num_classes: Width of the targets.
        mixup: Both parameters of the Beta distribution of the factor; 0: no mixup.
        cutmix: Both parameters of the Beta distribution of the fraction of the area that an image
            keeps; 0: no CutMix. With both, half of the steps are CutMix.
        seed: The run's seed.
        step: Counted from 0 over the whole run.

    Shape:
        - Input: (N, C, H, W) and (N,).
        - Output: images (N, C, H, W), in the memory format of `x`, and targets (N, num_classes)
          that sum to one.

    Source:
        Zhang et al., mixup, 2018, arXiv:1710.09412; Yun et al., CutMix, 2019, arXiv:1905.04899.
        Partners and box are those of `timm.data.Mixup`, which draws from numpy's global generator
        and refuses odd batches.
    """
    draw = generator(seed, "mix", step)
    cuts = cutmix > 0 and (mixup == 0 or draw.random() < CUTMIX_PROBABILITY)
    lam = float(draw.beta(cutmix, cutmix) if cuts else draw.beta(mixup, mixup))
    if cuts:
        height, width = x.shape[2:]
        sides = int(height * (1 - lam) ** 0.5), int(width * (1 - lam) ** 0.5)
        rows, columns = (
            clipped_span(int(draw.integers(0, size)), side, size)
            for size, side in zip((height, width), sides, strict=True)
        )
        mixed = x.clone()
        mixed[:, :, rows, columns] = x.flip(0)[:, :, rows, columns]
        lam = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    else:
        mixed = torch.lerp(x.flip(0), x, lam)
    targets = F.one_hot(y, num_classes).to(x.dtype)  # (N, num_classes)
    return mixed, torch.lerp(targets.flip(0), targets, lam)


def clipped_span(centre: int, length: int, size: int) -> slice:
    """Returns `length` positions around a centre, without those outside of the image."""
    return slice(max(centre - length // 2, 0), min(centre + length // 2, size))

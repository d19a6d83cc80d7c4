"""Mixup and CutMix: each image of a batch is mixed with its mirror in it, the first with
the last.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cpsam.seeds import generator

CUTMIX_SHARE = 0.5  # of the steps, where both are wanted


def mix_batch(
    x: Tensor, y: Tensor, num_classes: int, *, mixup: float, cutmix: float, seed: int, step: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mix a batch with itself in reverse order, all images by one share that is drawn from (seed,
    step) alone.

    A process that has every image of a global batch together with its mirror, at mirrored places,
    therefore gets the same pictures as one process with all of them would.

    Args:
        x: Images.
        y: Labels, int64.
        num_classes: Width of the targets.
        mixup: Both parameters of the Beta distribution that the share of the pixels' values is
            drawn from; 0: no mixup.
        cutmix: Those of the share of the area that an image keeps; 0: no CutMix. With both, half of
            the steps are CutMix.
        seed: The run's seed.
        step: Counted from 0 over the whole run.

    Shape:
        - Input: (N, C, H, W) and (N,).
        - Output: images (N, C, H, W), in the memory format of `x`, and targets (N, num_classes)
          that sum to one.

    Source:
        Zhang et al., mixup, 2018, arXiv:1710.09412; Yun et al., CutMix, 2019, arXiv:1905.04899;
        partners and box as in `timm.data.Mixup`, which draws from the global generator of numpy and
        refuses odd batches.
    """
    draw = generator(seed, "mix", step)
    cuts = cutmix > 0 and (mixup == 0 or draw.random() < CUTMIX_SHARE)
    share = float(draw.beta(cutmix, cutmix) if cuts else draw.beta(mixup, mixup))
    if cuts:
        height, width = x.shape[2:]
        sides = int(height * (1 - share) ** 0.5), int(width * (1 - share) ** 0.5)
        rows, columns = (
            span(int(draw.integers(0, size)), side, size)
            for size, side in zip((height, width), sides, strict=True)
        )
        mixed = x.clone()
        mixed[:, :, rows, columns] = x.flip(0)[:, :, rows, columns]
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    else:
        mixed = torch.lerp(x.flip(0), x, share)
    targets = F.one_hot(y, num_classes).to(x.dtype)  # (N, num_classes)
    return mixed, torch.lerp(targets.flip(0), targets, share)


def span(centre: int, length: int, size: int) -> slice:
    """So many places around a centre, as far as they lie within the image."""
    return slice(max(centre - length // 2, 0), min(centre + length // 2, size))

"""Measures top-1, top-5 and loss over a split. Every image counts once, at any batch size."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpsam.data.batches import eval_batches
from cpsam.data.dataset import Dataset
from cpsam.errors import UserError, unknown
from cpsam.torch_state import evaluating

SPLITS = ("train", "test")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}  # of autocast


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    split: str = "test",
    *,
    batch_size: int = 128,
    precision: str = "float32",
    device: torch.device | str | None = None,
    channels_last: bool = True,
    rank: int = 0,
    world_size: int = 1,
    all_reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, float | int]:
    """Measures a model on a split, without augmentation, and restores the mode of each module.

    Args:
        model: Maps images (N, C, H, W) to logits (N, num_classes).
        dataset: Its `num_classes` must be that of the model.
        split: "train" or "test".
        batch_size: Images per forward. It changes the result only by rounding in the model.
        precision: "float32", or "bfloat16" or "float16" for a forward under autocast. Sums are
            always in float64.
        device: The device of the batches. Default: that of the model's parameters.
        channels_last: The memory format of the images.
        rank: The number of this process; each process takes its part of the images.
        world_size: The number of processes.
        all_reduce: Returns the sum of a tensor over the processes.
        on_batch: Called before every batch with the number of images done and the number of all
            images, equally often in every process.

    Returns:
        ``top1`` and ``top5`` in [0, 1], the mean cross-entropy ``loss`` in nats, and ``n``, the
        number of images. With five classes or fewer, ``top5`` is 1.

    Raises:
        UserError: If the split or the precision is unknown, the split is empty, or the model has
            another number of classes.

    Example:
        >>> from cpsam.data import load_dataset
        >>> digits = load_dataset("digits")
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 10))
        >>> sorted(evaluate(model, digits))
        ['loss', 'n', 'top1', 'top5']
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    images = dataset.train if split == "train" else dataset.evaluation
    if not len(images):
        raise UserError(f"the {split} split of {dataset.name} has no images to evaluate on")
    if device is None:
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    device = torch.device(device)
    # Loss, top-1 hits, top-5 hits and images. They stay on the device, so that no batch waits for
    # a GPU.
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    options = {
        "rank": rank,
        "world_size": world_size,
        "device": device,
        "channels_last": channels_last,
    }
    batches = eval_batches(images, dataset, batch_size=batch_size, **options)
    with (
        closing(batches),  # pyrefly: ignore
        evaluating(model),
        torch.no_grad(),
        autocast(precision, device),
    ):
        for done in range(0, len(images), world_size * batch_size):
            if on_batch is not None:
                on_batch(done, len(images))
            if (batch := next(batches, None)) is None:  # Other processes have the last images.
                continue
            x, y = batch
            logits = checked_logits(model(x), len(x), dataset.num_classes)
            # (N, 5), best first
            hits = logits.topk(min(5, dataset.num_classes)).indices == y[:, None]
            loss = F.cross_entropy(logits.double(), y, reduction="sum")
            sums += torch.stack(
                (
                    loss,
                    hits[:, 0].sum().double(),
                    hits.sum().double(),
                    torch.ones_like(loss) * len(x),
                )
            )
    loss, top1, top5, count = all_reduce(sums).tolist()
    return {"top1": top1 / count, "top5": top5 / count, "loss": loss / count, "n": int(count)}


def checked_logits(output: object, images: int, classes: int) -> Tensor:
    """Returns what a model answers if it is one row of logits per image, (N, num_classes).

    Raises:
        UserError: If it is anything else, such as logits together with those of auxiliary heads.
    """
    if not isinstance(output, Tensor):
        raise UserError(
            f"the model answers {type(output).__name__}, and must answer logits alone, ({images},"
            f" {classes}): build it without auxiliary outputs"
        )
    if output.shape != (images, classes):
        raise UserError(
            f"the model answers {tuple(output.shape)} for {images} images of {classes} classes"
        )
    return output


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Returns the context in which a forward has this precision."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)

"""A plain PyTorch training script of the usual kind, to measure ours against. It is not ours and
imports nothing of ours but the network.

Images as PIL, one at a time through torchvision's transforms, in a DataLoader with two workers;
float32, NCHW. `--fast` turns on what such scripts turn on when somebody asks for speed: bfloat16
autocast and channels_last.

    python benchmarks/plain_script.py --data-root DATA --epochs 1 [--fast]
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cpsam.data import load_dataset
from cpsam.models import create_model

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


class Arrays(Dataset[tuple[Tensor, int]]):
    """As torchvision.datasets.CIFAR100: decoded arrays (N, H, W, C), each made a PIL image and
    transformed when it is asked for.
    """

    def __init__(self, images: NDArray[np.uint8], labels: list[int]) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def train(
    model: nn.Module,
    dataset: Arrays,
    *,
    epochs: int,
    fast: bool,
    batch_size: int = 128,
    workers: int = 2,
) -> Iterator[int]:
    """Train; yields the number of images after every step, so that a caller can take the time."""
    loader = DataLoader(
        dataset, batch_size=batch_size, shuffle=True, num_workers=workers, drop_last=True
    )
    if fast:
        model = model.to(memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    model.train()
    for epoch in range(epochs):
        running = 0.0
        for step, (images, labels) in enumerate(loader):
            if fast:
                images = images.to(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
                loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            running += loss.item()
            if step % 100 == 99:
                print(f"epoch {epoch + 1} step {step + 1} loss {running / 100:.3f}")
                running = 0.0
            yield len(labels)


def cifar100(root: Path | None) -> Arrays:
    split = load_dataset("cifar100", root).train
    return Arrays(
        np.ascontiguousarray(split.images.permute(0, 2, 3, 1).numpy()), split.labels.tolist()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain training script, for comparison.")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--fast", action="store_true")
    asked = parser.parse_args()
    started, images = time.perf_counter(), 0
    for count in train(
        create_model("resnet20", 100),
        cifar100(asked.data_root),
        epochs=asked.epochs,
        fast=asked.fast,
    ):
        images += count
    print(f"{images / (time.perf_counter() - started):.0f} images/s")


if __name__ == "__main__":
    main()

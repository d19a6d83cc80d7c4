"""A plain PyTorch training script of the usual kind, to measure ours against.

It takes only the network and the pixels from us. A DataLoader with two workers gives one PIL image
at a time to torchvision's transforms. It computes in float32 and NCHW. `--fast` turns on what such
scripts turn on for speed: bfloat16 autocast and channels_last.

    python benchmarks/plain_script.py --data-root DATA --epochs 1 [--fast]
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cpsam.data import Dataset as Pixels
from cpsam.data import load_dataset
from cpsam.models import create_model


class Arrays(Dataset[tuple[Tensor, int]]):
    """Holds decoded images as torchvision.datasets.CIFAR100 does.

    An image becomes a PIL image and is transformed when it is asked for.
    """

    def __init__(self, dataset: Pixels) -> None:
        images = np.ascontiguousarray(dataset.train.images.permute(0, 2, 3, 1).numpy())
        self.images = images[..., 0] if images.shape[-1] == 1 else images  # as PIL wants them
        self.labels = dataset.train.labels.tolist()
        steps = [
            transforms.RandomCrop(dataset.image_size, padding=dataset.padding),
            *([transforms.RandomHorizontalFlip()] if dataset.flip else []),
            transforms.ToTensor(),
            transforms.Normalize(dataset.mean, dataset.std),
        ]
        self.transform = transforms.Compose(steps)

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
    device: str = "cpu",
) -> Iterator[int]:
    """Trains, and yields after every step how many images it had."""
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        pin_memory=device != "cpu",
    )
    model = model.to(device)
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
            images, labels = (each.to(device, non_blocking=True) for each in (images, labels))
            if fast:
                images = images.to(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast(device, dtype=torch.bfloat16, enabled=fast):
                loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            running += loss.item()
            if step % 100 == 99:
                print(f"epoch {epoch + 1} step {step + 1} loss {running / 100:.3f}")
                running = 0.0
            yield len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain training script, for comparison.")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--fast", action="store_true")
    asked = parser.parse_args()
    started, images = time.perf_counter(), 0
    for count in train(
        create_model("resnet20", 100),
        Arrays(load_dataset("cifar100", asked.data_root)),
        epochs=asked.epochs,
        fast=asked.fast,
    ):
        images += count
    print(f"{images / (time.perf_counter() - started):.0f} images/s")


if __name__ == "__main__":
    main()

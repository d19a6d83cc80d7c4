"""ResNets for 32x32 images: the thin family 8 to 110, and 18, 34, 50 with a 3x3 stem."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from cpsam.errors import UserError, unknown

THIN_DEPTHS = {
    "resnet8": 1,
    "resnet20": 3,
    "resnet32": 5,
    "resnet44": 7,
    "resnet56": 9,
    "resnet110": 18,
}
WIDE_BLOCKS = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
}
CIFAR_RESNETS = (*THIN_DEPTHS, *WIDE_BLOCKS)


class PaddedShortcut(nn.Module):
    """A shortcut without parameters, option A of He et al., 2015.

    It takes every second position, and adds zero channels before and after.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.missing = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        front = self.missing // 2
        return F.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, front, self.missing - front)
        )


def padded(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return PaddedShortcut(in_channels, out_channels, stride)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


SHORTCUTS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "padded": padded,
    "projection": projection,
}


def stage(
    in_channels: int, out_channels: int, stride: int, blocks: int, shortcut: str
) -> nn.Sequential:
    """Returns the residual blocks of one resolution; the first changes stride and width."""
    change = (
        SHORTCUTS[shortcut](in_channels, out_channels, stride)
        if in_channels != out_channels
        else None
    )
    rest = (BasicBlock(out_channels, out_channels) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(in_channels, out_channels, stride, change), *rest)


class ThinResNet(nn.Module):
    """The 6n + 2 layer network of He et al., 2015, section 4.2.

    Its three stages have the widths 16, 32, 64 at strides 1, 2, 4.

    Args:
        blocks_per_stage: n; 3 gives ResNet-20, 1 gives ResNet-8.
        num_classes: Width of the classifier.
        in_channels: Channels of the images.
        shortcut: ``"padded"`` as in the paper, without parameters, or ``"projection"``, a 1x1
            convolution with a norm.

    Shape:
        - Input: (N, in_channels, H, W), any H and W.
        - Output: (N, num_classes).
    """

    def __init__(
        self,
        blocks_per_stage: int,
        num_classes: int,
        *,
        in_channels: int = 3,
        shortcut: str = "padded",
    ) -> None:
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise unknown("shortcut", shortcut, SHORTCUTS)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(16, 16, 1, blocks_per_stage, shortcut)
        self.layer2 = stage(16, 32, 2, blocks_per_stage, shortcut)
        self.layer3 = stage(32, 64, 2, blocks_per_stage, shortcut)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def wide_resnet(name: str, num_classes: int, in_channels: int) -> ResNet:
    """Returns torchvision's ResNet with a 3x3 stem and no pooling after it.

    Every CIFAR script uses this form; its strides are 1, 2, 4, 8.
    """
    block, depths = WIDE_BLOCKS[name]
    model = ResNet(block, depths, num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()  # pyrefly: ignore
    return model


def cifar_resnet(
    name: str, num_classes: int, *, in_channels: int = 3, shortcut: str | None = None
) -> nn.Module:
    """Builds a ResNet for small images by name.

    Args:
        name: One of ``CIFAR_RESNETS``.
        num_classes: Width of the classifier.
        in_channels: Channels of the images.
        shortcut: For the thin family, ``"padded"`` (its default, the paper's) or ``"projection"``.
            The others have projections.

    Raises:
        UserError: If the name or the shortcut is unknown, or padded shortcuts are asked of a
            network that has projections.

    Example:
        >>> sum(p.numel() for p in cifar_resnet("resnet20", 10).parameters())
        269722
    """
    if name in THIN_DEPTHS:
        return ThinResNet(
            THIN_DEPTHS[name], num_classes, in_channels=in_channels, shortcut=shortcut or "padded"
        )
    if name not in WIDE_BLOCKS:
        raise unknown("model", name, CIFAR_RESNETS)
    if shortcut not in (None, "projection"):
        raise UserError(f"{name} has projection shortcuts; got shortcut={shortcut!r}")
    return wide_resnet(name, num_classes, in_channels)

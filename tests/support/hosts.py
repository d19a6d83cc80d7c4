"""Networks of torchvision, timm and ours without pretrained weights, and what to compare of a model
before and after.
"""

from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from cpsam.attention import ATTENTION, NOT_IDENTITY_AT_START
from cpsam.models.cifar_resnet import cifar_resnet

IDENTITY = [name for name in ATTENTION if name not in NOT_IDENTITY_AT_START]


def make(name):
    """A block by name, from the number of channels alone; thin, because it is put into deep
    layers.
    """
    if name == "conv_control":
        return lambda channels: ATTENTION[name](channels, hidden_channels=5)
    if name == "non_local":
        return lambda channels: ATTENTION[name](channels, reduction=8)
    return ATTENTION[name]


def vgg16_bn():
    with torch.device("meta"):  # its classifier alone has 120 million weights
        model = torchvision.models.vgg16_bn()
    model.features = make_layers(cfgs["D"], batch_norm=True)
    model.classifier = nn.Linear(512 * 7 * 7, 7)
    return model


class SmallCNN(nn.Module):
    """Home-made: functional activations, a flatten and a classifier that take one image
    size only.
    """

    def __init__(self, size=(20, 28)):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(6, 10, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.fc = nn.Linear(10 * (size[0] // 4) * (size[1] // 4), 7)

    def forward(self, x):
        y = torch.relu(self.conv1(x))
        return self.fc(torch.relu(self.norm(self.conv2(y))).flatten(1))


@dataclass(frozen=True)
class Host:
    make: Callable[[], nn.Module]
    at: str | tuple[str, ...]
    places: tuple[str, ...]
    shape: tuple[int, ...] = (2, 3, 48, 64)

    def images(self):
        return torch.randn(self.shape)


def vision(name):
    return lambda: getattr(torchvision.models, name)(num_classes=7)


def image_model(name, **arguments):
    return lambda: timm.create_model(name, num_classes=7, **arguments)


HOSTS = {
    "resnet18": Host(vision("resnet18"), "layer3.*", ("layer3.0", "layer3.1")),
    "resnet50": Host(vision("resnet50"), ("nl-c4-last", "layer1.1"), ("layer1.1", "layer3.5")),
    "mobilenet_v2": Host(
        vision("mobilenet_v2"),
        "stage-ends",
        ("features.3", "features.6", "features.13", "features.17"),
    ),
    "efficientnet_b0": Host(vision("efficientnet_b0"), "features.4", ("features.4.2",)),
    "convnext_tiny": Host(vision("convnext_tiny"), "early", ("features.1.2", "features.3.2")),
    "densenet121": Host(
        vision("densenet121"),
        "features.denseblock2.denselayer1*.norm2",
        tuple(f"features.denseblock2.denselayer{i}.norm2" for i in (1, 10, 11, 12)),
    ),
    "vgg16_bn": Host(vgg16_bn, "early", ("features.5", "features.12"), (2, 3, 32, 48)),
    "regnet_y_400mf": Host(
        vision("regnet_y_400mf"),
        "nl-every-second-c3-c4",
        ("trunk_output.block2.block2-1", *(f"trunk_output.block3.block3-{i}" for i in (1, 3, 5))),
    ),
    "shufflenet_v2_x0_5": Host(
        vision("shufflenet_v2_x0_5"), "before-last", ("stage3.6", "stage4.2")
    ),
    "timm/resnet18": Host(
        image_model("resnet18", zero_init_last=False),
        "every-branch",
        tuple(f"layer{s}.{b}.bn2" for s in (1, 2, 3, 4) for b in (0, 1)),
    ),
    "timm/efficientnet_b0": Host(
        image_model("efficientnet_b0"), "blocks.2.*", ("blocks.2.0", "blocks.2.1")
    ),
    "timm/convnext_atto": Host(
        image_model("convnext_atto"),
        "before-last",
        ("stages.1.blocks.0", "stages.2.blocks.4", "stages.3.blocks.0"),
    ),
    "timm/mobilenetv3_small_100": Host(
        image_model("mobilenetv3_small_100"), "stage-ends", ("blocks.3.1", "blocks.4.2")
    ),
    "timm/resnetv2_50": Host(image_model("resnetv2_50"), "nl-c4-last", ("stages.2.blocks.5",)),
    "resnet20": Host(
        lambda: cifar_resnet("resnet20", 7), "before-last", ("layer2.1", "layer3.1"), (2, 3, 20, 28)
    ),
    "small_cnn": Host(SmallCNN, ("conv1", "norm"), ("conv1", "norm"), (2, 2, 20, 28)),
}


def snapshot(model):
    """All of a model that an insertion could disturb; two are equal if nothing but tensors' values
    could differ.
    """
    return {
        "repr": repr(model),
        "keys": list(model.state_dict()),
        "tensors": [id(tensor) for tensor in [*model.parameters(), *model.buffers()]],
        "versions": [tensor._version for tensor in [*model.parameters(), *model.buffers()]],
        "modes": [module.training for module in model.modules()],
        "hooks": [
            (list(module._forward_hooks.values()), list(module._forward_pre_hooks.values()))
            for module in model.modules()
        ],
        "attributes": [sorted(module.__dict__) for module in model.modules()],
        "frozen": [parameter.requires_grad for parameter in model.parameters()],
    }

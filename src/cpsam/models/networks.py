"""Builds our own networks by name: the CIFAR ResNets, and those that are local by construction."""

from torch import nn

from cpsam.models.cifar_resnet import CIFAR_RESNETS, cifar_resnet
from cpsam.models.pointwise import POINTWISE, Pointwise

NETWORKS = (*CIFAR_RESNETS, *POINTWISE)


def build_network(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Returns one of ``NETWORKS``."""
    if name in POINTWISE:
        return Pointwise(POINTWISE[name], num_classes, in_channels=in_channels)
    return cifar_resnet(name, num_classes, in_channels=in_channels)

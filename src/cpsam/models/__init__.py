"""Builds networks by name: our own, and every model of timm and torchvision.

No other room imports their models.

"""

from cpsam.models.cifar_resnet import CIFAR_RESNETS, cifar_resnet
from cpsam.models.factory import create_model
from cpsam.models.networks import NETWORKS
from cpsam.models.normalisation import expected_scaling, normalisation
from cpsam.models.weights import hash_weights, load_pretrained

__all__ = [
    "CIFAR_RESNETS",
    "NETWORKS",
    "cifar_resnet",
    "create_model",
    "expected_scaling",
    "hash_weights",
    "load_pretrained",
    "normalisation",
]

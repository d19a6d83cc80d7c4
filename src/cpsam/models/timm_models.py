"""Registers networks with attention in timm, as ``timm.create_model("cpsam_resnet50")``.

The blocks are inserted in the constructor, so that they are there when timm loads weights or takes
the network apart for its features.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from cpsam.attention import ATTENTION, NonLocal
from cpsam.insert import insert_attention
from cpsam.insert.make import Block
from cpsam.models.cifar_resnet import THIN_DEPTHS
from cpsam.models.timm_cifar import TimmThinResNet
from cpsam.models.weights import with_new_blocks

CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class AttentionResNet(ResNet):
    """timm's ResNet with attention inserted.

    Args:
        args: As in timm's ResNet.
        attention: A name in ``ATTENTION``, or a callable from channels to a block.
        at: Where, as in :func:`cpsam.insert.insert_attention`.
        kwargs: As in timm's ResNet.

    Raises:
        TypeError: If an argument is unknown.
        UserError: If the insertion is refused.
    """

    def __init__(
        self, *args: Any, attention: Block, at: str | Sequence[str] = "before-last", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        insert_attention(self, attention, at)

    @torch.jit.ignore
    def init_weights(self, zero_init_last: bool = True) -> None:
        """Draws the network anew, and then resets each layer of a block.

        timm draws every convolution, also those of the blocks.
        """
        super().init_weights(zero_init_last)
        for block in [
            module for module in self.modules() if isinstance(module, tuple(ATTENTION.values()))
        ]:
            for layer in block.modules():
                if callable(reset := getattr(layer, "reset_parameters", None)):
                    reset()


def before_last(layers: Sequence[int]) -> tuple[str, ...]:
    """Returns the paths of the placement before-last, written out.

    In a dilated network the strides differ. With paths its weights still fit.
    """
    return tuple(f"layer{stage}.{blocks - 2}" for stage, blocks in enumerate(layers[1:], 2))


def imagenet(
    depth: int, attention: Block, at: str | Sequence[str]
) -> tuple[type[nn.Module], dict[str, Any]]:
    block = Bottleneck if depth >= 50 else BasicBlock
    return AttentionResNet, {
        "block": block,
        "layers": DEPTHS[depth],
        "attention": attention,
        "at": at,
    }


MODELS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    **{
        f"cpsam_resnet{depth}": imagenet(depth, "cpsam", before_last(layers))
        for depth, layers in DEPTHS.items()
    },
    # The placement nl-every-second-c3-c4; in its recipe keys and values are pooled.
    "nl_resnet50": imagenet(50, partial(NonLocal, subsample=True), "layer[23].[135]"),
    "gc_resnet50": imagenet(50, "global_context", "layer[234].*.bn3"),  # gc-c3-c5
    **{
        f"cifar_{name}": (TimmThinResNet, {"blocks_per_stage": n})
        for name, n in THIN_DEPTHS.items()
    },
    **{
        f"cpsam_cifar_{name}": (TimmThinResNet, {"blocks_per_stage": n, "attention": "cpsam"})
        for name, n in THIN_DEPTHS.items()
    },
}
"""What is registered: the class and its arguments by name."""


def config(model: type[nn.Module]) -> dict[str, Any]:
    """Returns what timm wants to know of a network without published weights."""
    common = {"first_conv": "conv1", "classifier": "fc", "license": "apache-2.0"}
    if model is TimmThinResNet:
        small = {
            "num_classes": 100,
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "crop_pct": 1.0,
        }
        return {
            **common,
            **small,
            "interpolation": "bicubic",
            "mean": CIFAR100_MEAN,
            "std": CIFAR100_STD,
        }
    large = {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
    }
    return {
        **common,
        **large,
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
    }


# timm reads this name when a model is registered, and its tests leave out what is not in it.
default_cfgs = generate_default_cfgs({name: config(model) for name, (model, _) in MODELS.items()})


def entrypoint(
    name: str, model: type[nn.Module], defaults: Mapping[str, Any]
) -> Callable[..., nn.Module]:
    """Returns the function that timm calls to build `name`.

    Weights of the plain host fit, and new blocks stay as they start.
    """

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        features = {"out_indices": (0, 1, 2, 3)} if model is TimmThinResNet else {}
        return build_model_with_cfg(
            model,
            name,
            pretrained,
            feature_cfg=features,
            pretrained_filter_fn=with_new_blocks,
            **{**defaults, **kwargs},
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{model.__name__} registered as ``{name}``."
    return register_model(build)


for _name, (_model, _defaults) in MODELS.items():
    globals()[_name] = entrypoint(_name, _model, _defaults)

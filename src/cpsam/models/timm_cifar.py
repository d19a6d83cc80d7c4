"""The thin CIFAR ResNets with the interface of timm's models, and with attention."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import create_classifier
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from cpsam.insert import insert_attention
from cpsam.insert.make import Block
from cpsam.models.cifar_resnet import ThinResNet

STAGES = ("layer1", "layer2", "layer3")


class TimmThinResNet(ThinResNet):
    """:class:`~cpsam.models.cifar_resnet.ThinResNet` with the interface of timm's models.

    It computes the same and has the same keys.

    Args:
        blocks_per_stage: n; 3 gives ResNet-20.
        num_classes: Width of the classifier; 0 for none.
        in_chans: Channels of the images.
        global_pool: timm's name of a pooling; ``""`` for none.
        drop_rate: Dropout before the classifier, in training.
        shortcut: ``"padded"`` or ``"projection"``.
        attention: A name in ``ATTENTION``, or a callable from channels to a block. None: the bare
            network.
        at: Where, as in :func:`cpsam.insert.insert_attention`.

    Shape:
        - Input: (N, in_chans, H, W), any H and W.
        - Output: (N, num_classes).

    Raises:
        UserError: If the shortcut is unknown or the insertion is refused.
    """

    def __init__(
        self,
        blocks_per_stage: int,
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        shortcut: str = "padded",
        attention: Block | None = None,
        at: str | Sequence[str] = "before-last",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(
            blocks_per_stage, max(num_classes, 1), in_channels=in_chans, shortcut=shortcut
        )
        self.in_chans, self.drop_rate, self.grad_checkpointing = in_chans, float(drop_rate), False
        self.feature_info = [
            {"num_chs": width, "reduction": stride, "module": module}
            for width, stride, module in (
                (16, 1, "relu"),
                (16, 1, "layer1"),
                (32, 2, "layer2"),
                (64, 4, "layer3"),
            )
        ]
        self.num_features = 64
        self.reset_classifier(num_classes, global_pool)
        if attention is not None:
            insert_attention(self, attention, at)
        self.to(device=device, dtype=dtype)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {
            "stem": r"^conv1|^bn1",
            "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)",
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self, name_only: bool = False) -> str | nn.Module:
        return "fc" if name_only else self.fc

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Makes a new classifier, with 0 classes for none; the pooling stays if it is not given."""
        like, pool_type = (
            self.conv1.weight,
            self.global_pool.pool_type if global_pool is None else global_pool,
        )
        self.num_classes = num_classes
        head = create_classifier(
            self.num_features,
            num_classes,
            pool_type=pool_type,
            device=like.device,
            dtype=like.dtype,
        )
        self.global_pool, self.fc = head  # pyrefly: ignore
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.global_pool.train(self.training)
        self.fc.train(self.training)

    @torch.jit.ignore
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Returns the features after the stem and each stage: all four, or those of `indices`.

        Returns:
            The list of them alone, or the last features and the list.
        """
        assert output_fmt == "NCHW", "the features are NCHW"
        taken, last = feature_take_indices(len(self.feature_info), indices)
        x = self.relu(self.bn1(self.conv1(x)))
        seen = [x]
        for name in STAGES[:last] if stop_early else STAGES:
            stage = getattr(self, name)
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
            seen.append(x)
        intermediates = [features for index, features in enumerate(seen) if index in taken]
        return intermediates if intermediates_only else (x, intermediates)

    @torch.jit.ignore
    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops the stages after the last of `indices`, and the classifier if it no longer fits."""
        taken, last = feature_take_indices(len(self.feature_info), indices)
        for name in STAGES[last:]:
            setattr(self, name, nn.Sequential())
        if STAGES[last:]:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_head or STAGES[last:]:
            self.reset_classifier(0, "")
        return taken

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq([self.layer1, self.layer2, self.layer3], x, flatten=True)
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if self.drop_rate > 0:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

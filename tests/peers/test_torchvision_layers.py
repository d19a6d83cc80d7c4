"""Squeeze-and-excitation of torchvision."""

from support.peer_layers import C, images, ours, same, with_weights_of
from torchvision.ops import SqueezeExcitation

from cpsam.attention import SqueezeExcite


def test_squeeze_excite():
    block = ours(SqueezeExcite, reduction=2)
    same(
        block,
        with_weights_of(block, SqueezeExcitation(C, 12), {"squeeze": "fc1", "expand": "fc2"}),
        images(),
    )

"""One block of ours and one of a peer's with the same weights."""

import torch

from cpsam.testing import randomise

C = 24


def ours(cls, **arguments):
    return randomise(cls(C, **arguments)).double().eval()


def with_weights_of(block, peer, names):
    """`peer` with the weights of `block`; `names` maps the names of our layers to theirs. Neither
    may have others.
    """
    state, theirs = {}, peer.state_dict()
    for name, tensor in block.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        key = f"{names[layer]}.{leaf}"
        state[key] = tensor.reshape(theirs[key].shape)  # a norm over (C, 1, 1) is one over C
    peer.double().eval().load_state_dict(state)
    return peer


def images(*shape):
    return torch.randn(*(shape or (2, C, 5, 7)), dtype=torch.float64)


@torch.no_grad()
def same(block, peer, x):
    expected = peer(x)
    assert (block(x) - x).abs().max() > 1e-2
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def different(block, peer, x):
    assert (block(x) - peer(x)).abs().max() > 1e-4

"""What a module is to a network, from a real forward with zeros in place of its output; nothing
here knows how places are found.
"""

import torch
from torch import nn
from torch.utils._pytree import tree_leaves


def with_random_numbers(network: nn.Module) -> nn.Module:
    """Returns the network in eval mode with random numbers everywhere, also where training starts
    at zero.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.dim() > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
            elif tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return network.eval()


def outputs(network: nn.Module, zeroed: str | None = None) -> list[torch.Tensor]:
    """Returns what the network makes of each of two images, with zeros for the output of the module
    `zeroed`.
    """
    images = torch.randn(2, 1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    handle = zeroed and network.get_submodule(zeroed).register_forward_hook(
        lambda module, given, out: torch.zeros_like(out)
    )
    with torch.no_grad():
        found = [
            torch.cat([leaf.flatten() for leaf in tree_leaves(network(image))]) for image in images
        ]
    if handle:
        handle.remove()
    assert all(torch.isfinite(output).all() for output in found)
    return found


def is_on_the_trunk(network: nn.Module, path: str) -> bool:
    """Whether zeros there make all images alike."""
    return torch.equal(*outputs(network, path))


def is_a_branch(network: nn.Module, path: str, whole: list[torch.Tensor]) -> bool:
    """Whether the network works without it, and not as the `whole` does."""
    without = outputs(network, path)
    return not torch.equal(*without) and not torch.equal(without[0], whole[0])

"""Non-Local: every position attends to all others by a map of its own."""

import torch
from torch import Tensor, nn

from cpsam.attention import _fast_path
from cpsam.attention.arguments import check_choice, hidden_channels
from cpsam.attention.identity_start import before_norm, residual_norm
from cpsam.functional import concatenation_attention, dot_product_attention, softmax_attention


class SoftmaxPairs(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return softmax_attention(query, key, value, self.scale)


class DotProductPairs(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return dot_product_attention(query, key, value)


class ConcatenationPairs(nn.Module):
    """The weight vector w_f of the concatenation, in its halves for query and key."""

    def __init__(self, hidden: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.query_logits = nn.Conv2d(hidden, 1, 1, bias=False, device=device, dtype=dtype)
        self.key_logits = nn.Conv2d(hidden, 1, 1, bias=False, device=device, dtype=dtype)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return concatenation_attention(self.query_logits(query), self.key_logits(key), value)


MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


class NonLocal(nn.Module):
    """Add to every position what it attends to: ``y_i = x_i + norm(proj(sum_j f(x_i, x_j)
    value(x_j)))``.

    Cost and, but for the softmax modes, memory grow with the square of the number of positions.

    Args:
        in_channels: Channels C of input and output.
        reduction: Ratio of the inner width, ``max(8, C // reduction)``.
        mode: The pairwise function f. ``"embedded_gaussian"``: softmax_j of query_i . key_j;
            ``"gaussian"``: softmax_j of x_i . x_j; ``"dot_product"``: query_i . key_j / L;
            ``"concatenation"``: relu(w . [query_i, key_j]) / L.
        norm: ``"batch"``, a BatchNorm whose weight starts at zero, or ``"none"``; then `proj`
            starts at zero.
        subsample: Max-pool keys and values 2x2 (an odd edge is pooled too), which makes the pairs
            four times fewer.
        scaled: Multiply the logits of the two softmax modes by ``1 / sqrt(width of the product)``.
            Off, as in the paper.

    In the softmax modes torch's fused attention does not hold the map of all pairs on CPUs. On
    other devices torch chooses. Second derivatives, forward-mode derivatives, ``torch.func`` and
    ``torch.jit`` do hold it. In eager float32 and float64 the embedded Gaussian also takes query,
    key and value from one product. This faster way is taken, and left, as in
    :class:`~cpsam.attention.CPSAM`.

    Without a softmax the result grows with the cube (``"dot_product"``) or the square
    (``"concatenation"``) of the activations. In float16 it can leave the range from activations of
    about 30, or 300, and the block, even a new one, gives NaN. Use bfloat16 there.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1, `mode` or `norm` is unknown, or
            `scaled` is asked of a mode that has no softmax.

    Example:
        >>> NonLocal(64)(torch.randn(2, 64, 5, 7)).shape
        torch.Size([2, 64, 5, 7])

    Source:
        Wang et al., Non-local neural networks, 2018, arXiv:1711.07971, equations 1 to 6; query,
        key, value, proj are its theta, phi, g, W_z. Our deviation: an inner width is never below 8.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 2,
        mode: str = "embedded_gaussian",
        norm: str = "batch",
        subsample: bool = False,
        scaled: bool = False,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, MODES)
        if scaled and mode in ("dot_product", "concatenation"):
            raise ValueError(
                "scaled applies to the softmax of embedded_gaussian and gaussian; got"
                f" mode={mode!r}, which has none"
            )
        self.in_channels, self.reduction, self.mode, self.norm = in_channels, reduction, mode, norm
        self.subsample, self.scaled = subsample, scaled
        hidden = hidden_channels(in_channels, reduction)
        width = in_channels if mode == "gaussian" else hidden
        factory = {"device": device, "dtype": dtype}
        embed = mode != "gaussian"
        self.query = nn.Conv2d(in_channels, hidden, 1, **factory) if embed else nn.Identity()
        self.key = nn.Conv2d(in_channels, hidden, 1, **factory) if embed else nn.Identity()
        self.value = nn.Conv2d(in_channels, hidden, 1, **factory)
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if subsample else nn.Identity()
        if mode == "dot_product":
            self.attend = DotProductPairs()
        elif mode == "concatenation":
            self.attend = ConcatenationPairs(hidden, **factory)
        else:
            self.attend = SoftmaxPairs(width**-0.5 if scaled else 1.0)
        self.proj = before_norm(norm, nn.Conv2d(hidden, in_channels, 1, **factory))
        self.post_norm = residual_norm(norm, in_channels, **factory)
        self.built = _fast_path.describe(self) if mode == "embedded_gaussian" else None

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, reduction={self.reduction}, mode={self.mode}, norm={self.norm}, "
            f"subsample={self.subsample}, scaled={self.scaled}"
        )

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript skips the body of this condition alone
            if _fast_path.applies(self, x):
                return _fast_path.non_local(self, x)
        key, value = self.pool(self.key(x)), self.pool(self.value(x))  # (N, C/r, H', W')
        attended = self.attend(self.query(x), key, value)  # (N, C/r, H, W)
        return x + self.post_norm(self.proj(attended))

"""Non-Local: every position attends to all positions with its own map."""

from torch import Tensor, nn

from cpsam.attention import _fast_path
from cpsam.attention._common import before_norm, check_choice, hidden_channels, residual_norm
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
    """Holds the weight vector w_f of the concatenation as two halves, for query and key."""

    def __init__(self, hidden: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.query_logits = nn.Conv2d(hidden, 1, 1, bias=False, device=device, dtype=dtype)
        self.key_logits = nn.Conv2d(hidden, 1, 1, bias=False, device=device, dtype=dtype)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return concatenation_attention(self.query_logits(query), self.key_logits(key), value)


MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


class NonLocal(nn.Module):
    """Adds to every position what it attends to.

    ``y_i = x_i + norm(proj(sum_j f(x_i, x_j) value(x_j)))``. The cost grows with the square of the
    number of positions. So does the memory of the modes without a softmax.

    Args:
        in_channels: Number of channels C of input and output.
        reduction: Ratio of the inner width, ``max(8, C // reduction)``.
        mode: The pairwise function f. ``"embedded_gaussian"``: softmax_j of query_i . key_j;
            ``"gaussian"``: softmax_j of x_i . x_j; ``"dot_product"``: query_i . key_j / L;
            ``"concatenation"``: relu(w . [query_i, key_j]) / L.
        norm: ``"batch"``, a BatchNorm whose weight starts at zero, or ``"none"``. Without a
            norm `proj` starts at zero.
        subsample: Whether keys and values are max-pooled 2x2, which leaves a quarter of the pairs.
            An odd edge is pooled too.
        scaled: Whether the logits of the softmax modes are multiplied by
            ``1 / sqrt(width of the product)``. The default is that of the paper.

    In the softmax modes the map of all pairs is not held on CPUs; on other devices torch chooses.
    Second derivatives, forward-mode derivatives, ``torch.func`` and ``torch.jit`` hold it.

    Without a softmax the result grows with the cube (``"dot_product"``) or the square
    (``"concatenation"``) of the activations. In float16 it can overflow from activations of about
    30 (or 300), and even a new block then gives NaN. Use bfloat16 in these modes.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If a number is below 1, `mode` or `norm` is unknown, or `scaled` is true for a
            mode that has no softmax.

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
            softmax_modes = "the softmax of embedded_gaussian and gaussian"
            raise ValueError(f"scaled applies to {softmax_modes}; got mode={mode!r}, without one")
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
        sizes = f"{self.in_channels}, reduction={self.reduction}"
        switches = f"subsample={self.subsample}, scaled={self.scaled}"
        return f"{sizes}, mode={self.mode}, norm={self.norm}, {switches}"

    @_fast_path.try_first(_fast_path.non_local)
    def forward(self, x: Tensor) -> Tensor:
        key, value = self.pool(self.key(x)), self.pool(self.value(x))  # (N, C/r, H', W')
        attended = self.attend(self.query(x), key, value)  # (N, C/r, H, W)
        return x + self.post_norm(self.proj(attended))

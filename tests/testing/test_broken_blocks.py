"""The contract bites: a healthy block passes it, and each way of breaking the block is caught by
the laws that should.
"""

import random
import warnings

import pytest
import torch
from torch import nn

from cpsam.testing import LAWS, BrokenLaw, Case, check_attention
from cpsam.testing.contract import undisturbed, violation


class Healthy(nn.Module):
    """A Non-Local block with a local branch: enough to be broken in every way."""

    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__()
        hidden, factory = max(8, in_channels // reduction), {"device": device, "dtype": dtype}
        self.query = nn.Conv2d(in_channels, hidden, 1, **factory)
        self.key = nn.Conv2d(in_channels, hidden, 1, bias=False, **factory)
        self.value = nn.Conv2d(in_channels, hidden, 1, **factory)
        self.local = nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False, **factory
        )
        self.proj = nn.Conv2d(hidden, in_channels, 1, bias=False, **factory)
        self.norm = nn.BatchNorm2d(in_channels, **factory)
        nn.init.zeros_(self.norm.weight)
        self.scale = hidden**-0.5

    def attention(self, x):
        # (N, L, L)
        return (
            self.scale * self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)
        ).softmax(-1)

    def attend(self, x):
        return (self.value(x).flatten(2) @ self.attention(x).transpose(1, 2)).unflatten(
            2, x.shape[2:]
        )

    def residual(self, x):
        return self.norm(self.proj(self.attend(x)) + self.local(x))

    def forward(self, x):
        return x + self.residual(x)


def definition(block, x):
    state = block.state_dict()

    def project(name):
        weight, bias = state[f"{name}.weight"][:, :, 0, 0], state.get(f"{name}.bias")
        y = torch.einsum("oc,nchw->nohw", weight, x)
        return y if bias is None else y + bias.view(1, -1, 1, 1)

    query, key, value = map(project, ("query", "key", "value"))
    logits = torch.einsum("nchw,ncij->nhwij", query, key) / query.shape[1] ** 0.5
    attn = logits.exp() / logits.exp().sum((-2, -1), keepdim=True)
    y = torch.einsum("nhwij,ncij->nchw", attn, value)
    y = torch.einsum("oc,nchw->nohw", state["proj.weight"][:, :, 0, 0], y)
    y = y + nn.functional.conv2d(x, state["local.weight"], padding=1, groups=x.shape[1])
    mean, variance, weight, bias = (
        state[f"norm.{k}"].view(1, -1, 1, 1)
        for k in ("running_mean", "running_var", "weight", "bias")
    )
    return x + (y - mean) / (variance + 1e-5).sqrt() * weight + bias


def parameters(channels, reduction):
    hidden = max(8, channels // reduction)
    return 4 * channels * hidden + 2 * hidden + 9 * channels + 2 * channels


def macs(shape, reduction):
    batch, channels, height, width = shape
    hidden, length = max(8, channels // reduction), height * width
    return batch * (
        4 * channels * hidden * length + length**2 * (2 * hidden + 1) + 9 * channels * length
    )


class WrongScale(Healthy):
    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)
        self.scale = in_channels**-0.5


class HeightAndWidthSwapped(Healthy):
    def attend(self, x):
        y = self.value(x).flatten(2) @ self.attention(x).transpose(1, 2)
        return y.unflatten(2, (x.shape[3], x.shape[2])).transpose(2, 3)


class Transposed(Healthy):
    def forward(self, x):
        return super().forward(x).transpose(2, 3)


class SoftmaxOverQueries(Healthy):
    def attention(self, x):
        return (
            self.scale * self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)
        ).softmax(-2)


class InPlaceOnTheShortcut(Healthy):
    def forward(self, x):
        x += self.residual(x)
        return x


class DeadArgument(Healthy):
    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.reduction = reduction

    def extra_repr(self):
        return f"reduction={self.reduction}"


class UntriedArgument(Healthy):
    def __init__(self, in_channels, *, reduction=2, init_last_zero=False, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)


class DeadParameter(Healthy):
    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)
        self.unused = nn.Parameter(torch.ones(3, device=device, dtype=dtype))


class SwallowedArgument(Healthy):
    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None, **kwargs):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)


class PositionalArgument(Healthy):
    def __init__(self, in_channels, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)


class NoFactory(Healthy):
    def __init__(self, in_channels, *, reduction=2):
        super().__init__(in_channels, reduction=reduction)


class DeafToDtype(Healthy):
    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)
        self.local = nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False, device=device
        )


class BatchLeak(Healthy):
    def residual(self, x):
        return super().residual(x) + self.norm.weight.view(-1, 1, 1) * x.mean(
            (0, 2, 3), keepdim=True
        )


class StartsElsewhere(Healthy):
    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)
        nn.init.constant_(self.norm.weight, 1e-4)


class NeverStarts(Healthy):
    """Two factors at zero: neither gets a gradient."""

    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)
        for module in (self.proj, self.value):
            nn.init.zeros_(module.weight)
        nn.init.zeros_(self.value.bias)


class DoesNothing(Healthy):
    def forward(self, x):
        return x + 0 * self.residual(x)


class LooksInTrainingOnly(Healthy):
    def attend(self, x):
        return super().attend(x) if self.training else self.value(x)


class StatisticsAlwaysMove(Healthy):
    def residual(self, x):
        self.norm.train()
        return super().residual(x)


class StatisticsNeverMove(Healthy):
    def residual(self, x):
        self.norm.eval()
        return super().residual(x)


class Noisy(Healthy):
    def attend(self, x):
        return super().attend(x) * (1 + 1e-3 * torch.randn_like(x[:, :1]))


class KeepsState(Healthy):
    """A map is kept for as long as images have the same size."""

    kept = None

    def attention(self, x):
        if (
            self.kept is None
            or self.kept.shape[0] != x.shape[0]
            or self.kept.shape[1] != x.shape[2] * x.shape[3]
        ):
            self.kept = super().attention(x)
        return self.kept


class DetachedAttention(Healthy):
    def attention(self, x):
        return super().attention(x).detach()


class DetachedInput(Healthy):
    def attention(self, x):
        return super().attention(x.detach())


class WrongDtype(Healthy):
    def forward(self, x):
        return super().forward(x).float()


class FixedSize(Healthy):
    def attend(self, x):
        return super().attend(x).reshape(-1, self.value.out_channels, 5, 7)


class FixedChannels(Healthy):
    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(24, reduction=reduction, device=device, dtype=dtype)


class HalfPrecisionOverflow(Healthy):
    def residual(self, x):
        norm = x.square().sum((1, 2, 3), keepdim=True).sqrt()
        return super().residual(x) + self.norm.weight.view(-1, 1, 1) * x * norm / (1 + norm)


class BareExponential(Healthy):
    def attention(self, x):
        logits = self.scale * self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)
        return logits.exp() / logits.exp().sum(-1, keepdim=True)


class NeedsContiguousImages(Healthy):
    def attend(self, x):
        return super().attend(x.view(x.shape[0], -1).view(x.shape))


class ForgetsChannelsLast(Healthy):
    def forward(self, x):
        return super().forward(x.contiguous()).contiguous()


class PlainTensor(Healthy):
    """Not a buffer, so that it stays behind when the block moves."""

    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)
        self.ones = torch.ones(in_channels, 1, 1)

    def forward(self, x):
        return x + self.ones * self.residual(x)


class BranchesOnSize(Healthy):
    def attend(self, x):
        return super().attend(x) if x.shape[2] * x.shape[3] < 60 else self.value(x)


class BranchesOnAValue(Healthy):
    def attend(self, x):
        return super().attend(x) if float(x.abs().max()) < 1e6 else self.value(x)


class NoCopies(Healthy):
    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)
        self.act = lambda x: x

    def residual(self, x):
        return self.act(super().residual(x))


class OneBiasTooMany(Healthy):
    def __init__(self, in_channels, *, reduction=2, device=None, dtype=None):
        super().__init__(in_channels, reduction=reduction, device=device, dtype=dtype)
        self.value_bias = nn.Parameter(
            torch.zeros(self.value.out_channels, 1, 1, device=device, dtype=dtype)
        )

    def attend(self, x):
        return super().attend(x) + self.value_bias


class ComputedTwice(Healthy):
    def attend(self, x):
        return (super().attend(x) + super().attend(x)) / 2


class RoundsTooEarly(Healthy):
    """What float64 needs is cut to bfloat16 as soon as the features are of low precision."""

    def attend(self, x):
        y = super().attend(x)
        return y if x.dtype == torch.float64 else y.to(torch.float8_e4m3fn).to(x.dtype)


class Unscriptable(Healthy):
    def attend(self, x):
        return super().attend(*[x])


class BreaksTheGraph(Healthy):
    def forward(self, x):
        if not torch.jit.is_scripting():
            torch._dynamo.graph_break()
        return x + self.residual(x)


class ForgetsToExport(Healthy):
    """Goes another way where it is exported."""

    def forward(self, x):
        y = self.residual(x)
        if not torch.jit.is_scripting():
            y = 2 * y if torch.compiler.is_exporting() else y
        return x + y


class UnknownToOnnx(Healthy):
    def forward(self, x):
        return x + self.residual(x) * torch.special.i0e(self.norm.weight).view(-1, 1, 1)


class HasNoDeterministicKernel(Healthy):
    """Lets the local branch see only the largest value of each window."""

    def residual(self, x):
        pooled, places = nn.functional.max_pool2d(x, (1, 3), return_indices=True)
        largest = nn.functional.max_unpool2d(pooled, places, (1, 3), output_size=x.shape[2:])
        return super().residual(x) + self.norm(self.local(largest))


class WarnsOfChance(Healthy):
    def residual(self, x):
        if torch.are_deterministic_algorithms_enabled():
            warnings.warn("this uses a non-deterministic algorithm", stacklevel=2)
        return super().residual(x)


class DrawsFromTheSystem(Healthy):
    def residual(self, x):
        noise = 1 + 1e-6 * random.SystemRandom().random()
        return super().residual(x) * noise if self.training else super().residual(x)


class ReadsMemoryBeforeItWrites(Healthy):
    def residual(self, x):
        unset = torch.empty_like(x)
        return super().residual(x) + 0 * unset


class TwoOutputs(Healthy):
    def forward(self, x):
        return super().forward(x), self.attention(x)


BROKEN = {
    WrongScale: {"reference"},
    HeightAndWidthSwapped: {"reference"},
    Transposed: {"shape"},
    SoftmaxOverQueries: {"reference"},
    InPlaceOnTheShortcut: {"untouched"},
    DeadArgument: {"arguments"},
    UntriedArgument: {"arguments"},
    DeadParameter: {"learning", "gradient"},
    SwallowedArgument: {"constructor"},
    PositionalArgument: {"constructor"},
    NoFactory: {"constructor"},
    DeafToDtype: {"constructor"},
    BatchLeak: {"batch"},
    StartsElsewhere: {"identity"},
    NeverStarts: {"learning"},
    DoesNothing: {"shape"},
    LooksInTrainingOnly: {"modes"},
    StatisticsAlwaysMove: {"batch", "modes"},
    StatisticsNeverMove: {"modes"},
    Noisy: {"repeatable"},
    KeepsState: {"repeatable"},
    DetachedAttention: {"learning", "gradient"},
    DetachedInput: {"gradient"},
    WrongDtype: {"shape"},
    FixedSize: {"shape"},
    FixedChannels: {"shape"},
    HalfPrecisionOverflow: {"large_inputs"},
    BareExponential: {"large_inputs"},
    NeedsContiguousImages: {"memory"},
    ForgetsChannelsLast: {"memory"},
    PlainTensor: {"shape"},
    BranchesOnSize: {"fx"},
    BranchesOnAValue: {"shape"},
    NoCopies: {"copies"},
    OneBiasTooMany: {"parameters"},
    ComputedTwice: {"macs"},
    RoundsTooEarly: {"precision"},
    Unscriptable: {"script"},
    BreaksTheGraph: {"compile"},
    ForgetsToExport: {"export"},
    UnknownToOnnx: {"onnx"},
    HasNoDeterministicKernel: {"deterministic"},
    WarnsOfChance: {"deterministic"},
    DrawsFromTheSystem: {"deterministic", "repeatable"},
    ReadsMemoryBeforeItWrites: {"deterministic"},
    TwoOutputs: {"shape"},
}


def told(cls):
    """What :func:`check_attention` is told of a block."""
    exact = cls in (Healthy, WrongScale, HeightAndWidthSwapped, SoftmaxOverQueries)
    counted = (
        {"parameters": parameters, "macs": macs}
        if cls in (Healthy, OneBiasTooMany, ComputedTwice)
        else {}
    )
    return {"reference": definition if exact else None, **counted}


def test_a_healthy_block_passes():
    check_attention(Healthy, variants=[{"reduction": 3}], **told(Healthy))


def test_every_law_catches_one():
    assert set().union(*BROKEN.values()) == set(LAWS)


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_block_is_caught_by_the_law_that_should(cls):
    if BROKEN[cls] == {"onnx"}:  # it is tried where it is installed
        pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    for law in BROKEN[cls]:
        with undisturbed():
            assert (
                violation(LAWS[law], Case(cls, {}, ({}, {"reduction": 3}), **told(cls))) is not None
            ), law


@pytest.mark.parametrize("cls", [BatchLeak, DeafToDtype], ids=lambda cls: cls.__name__)
def test_a_broken_block_is_told_by_law_statement_and_class(cls):
    with pytest.raises(BrokenLaw) as caught:
        check_attention(cls, variants=[{"reduction": 3}])
    assert set(caught.value.laws) >= BROKEN[cls]
    for law in BROKEN[cls]:
        assert f"{law!r} is broken. {LAWS[law].statement} {cls.__name__}(24): " in str(caught.value)
    assert all("\n" not in law.statement for law in LAWS.values())

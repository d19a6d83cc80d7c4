"""Each law is tried at the sizes, precisions and states where a fault of its kind hides."""

import random

import pytest
import torch
from torch import nn

from cpsam.testing import LAWS, Case, check_attention
from cpsam.testing.contract import undisturbed, violation


class Plain(nn.Module):
    """Adds a local and a global term: a right block, small enough to be tried often."""

    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.local = nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False, **factory
        )
        self.mix = nn.Conv2d(in_channels, in_channels, 1, **factory)
        self.norm = nn.BatchNorm2d(in_channels, **factory)
        nn.init.zeros_(self.norm.weight)

    def context(self, x):
        return x.mean((2, 3), keepdim=True)

    def residual(self, x):
        return self.norm(self.local(x) + self.mix(self.context(x)))

    def forward(self, x):
        return x + self.residual(x)


# Numbers of channels


class RaisesAtOddChannels(Plain):
    def context(self, x):
        return super().context(x).unflatten(1, (2, -1)).flatten(1, 2)


class RaisesAtTwelveChannels(Plain):
    """Eight heads, a multiple of which 24 and 40 are."""

    def context(self, x):
        return super().context(x).view(x.shape[0], 8, -1).view(x.shape[0], -1, 1, 1)


class RaisesAboveAThousandChannels(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        if in_channels > 1024:
            raise ValueError("too wide")


class LosesTheLastOddChannel(Plain):
    def residual(self, x):
        even = x.shape[1] // 2 * 2
        return nn.functional.pad(super().residual(x)[:, :even], (0, 0, 0, 0, 0, x.shape[1] - even))


class DoesNotReadTheLastOddChannel(Plain):
    def residual(self, x):
        even = x.shape[1] // 2 * 2
        return super().residual(nn.functional.pad(x[:, :even], (0, 0, 0, 0, 0, x.shape[1] - even)))


class EmptyBottleneck(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        hidden, factory = in_channels // 8, {"device": device, "dtype": dtype}
        self.mix = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, **factory),
            nn.Conv2d(hidden, in_channels, 1, **factory),
        )


class StartsElsewhereAtOddChannels(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        if in_channels % 2:
            nn.init.constant_(self.norm.weight, 1e-3)


class AnotherFormulaAtOddChannels(Plain):
    def context(self, x):
        return super().context(x) * (1 + x.shape[1] % 2)


class AnotherFormulaOnLongRows(Plain):
    def context(self, x):
        return super().context(x[:, :, :, :14])


class OneParameterMoreAtOddChannels(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        if in_channels % 2:
            self.shift = nn.Parameter(torch.zeros(in_channels, 1, 1, device=device, dtype=dtype))

    def context(self, x):
        return super().context(x) + (self.shift if x.shape[1] % 2 else 0)


# Maps


class TableOf14(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.table = nn.Parameter(torch.zeros(in_channels, 14, 14, device=device, dtype=dtype))

    def residual(self, x):
        return super().residual(x + self.table[:, : x.shape[2], : x.shape[3]])


class DeviationAt1x1(Plain):
    def context(self, x):
        return x.flatten(2).std(-1)[..., None, None]


class TableOf64Images(Plain):
    def context(self, x):
        return super().context(x) * x.new_ones(64, 1, 1, 1)[: x.shape[0]]


# States of images


class RangeOfConstantImages(Plain):
    def context(self, x):
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return ((x - low) / (high - low)).mean((2, 3), keepdim=True)


class NormOfDeadChannels(Plain):
    """Its gradient is 0 / 0 where a channel is zero."""

    def context(self, x):
        return x.square().sum((2, 3), keepdim=True).sqrt()


class NormOfDeadChannelsInTraining(Plain):
    def context(self, x):
        return x.square().sum((2, 3), keepdim=True).sqrt() if self.training else super().context(x)


class DirectionOfDeadImages(Plain):
    def context(self, x):
        mean = super().context(x)
        return mean / mean.square().sum(1, keepdim=True).sqrt()


class SumOverflowsAt56x56(Plain):
    def context(self, x):
        return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])


class EnergyOverflowsAt56x56(Plain):
    def context(self, x):
        return (x.square().sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3]) + 1).sqrt()


class TooSmallForFloat16(Plain):
    def context(self, x):
        mean = super().context(x)
        return mean / (mean.square().sum(1, keepdim=True) + 1e-8).sqrt()


class NotANumberAtTheStart(Plain):
    """The direction of a weight that starts at zero; a gate, which need not be the identity."""

    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x):
        weight = self.mix.weight[:, :, 0, 0]
        direction = weight / weight.square().sum(1, keepdim=True).sqrt()
        return (
            x
            * (direction @ self.context(x)[:, :, :, 0] + self.mix.bias[:, None]).sigmoid()[
                ..., None
            ]
        )


# What a call depends on


class AnotherFormulaInFloat32Training(Plain):
    def residual(self, x):
        y = super().residual(x)
        return 1.1 * y if self.training and x.dtype == torch.float32 else y


class AnotherFormulaWhereItsNormTrains(Plain):
    def residual(self, x):
        y = super().residual(x)
        return 1.1 * y if self.norm.training and x.dtype == torch.float32 else y


class AnotherFormulaInHalfTraining(Plain):
    def residual(self, x):
        y = super().residual(x)
        return 1.1 * y if self.training and x.dtype == torch.bfloat16 else y


class AnotherFormulaWithoutGradients(Plain):
    def residual(self, x):
        return super().residual(x) * (1 if torch.is_grad_enabled() else 2)


class AnotherFormulaForFrozenImages(Plain):
    def residual(self, x):
        return super().residual(x) * (2 if x.requires_grad else 1)


class BreaksInInferenceMode(Plain):
    """Keeps a grid of each size; one made in inference mode cannot be trained with."""

    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.grids = {}

    def context(self, x):
        size = (x.shape[2], x.shape[3], x.dtype, x.device)
        if size not in self.grids:
            self.grids[size] = torch.linspace(
                0, 1, x.shape[3], dtype=x.dtype, device=x.device
            ).expand(x.shape[2], -1)
        return (x * self.grids[size]).mean((2, 3), keepdim=True)


class GridOfTheFirstPrecision(Plain):
    grids = None

    def context(self, x):
        self.grids = self.grids or {}
        if x.shape[2:] not in self.grids:
            self.grids[x.shape[2:]] = torch.linspace(
                0.1, 1, x.shape[3], dtype=x.dtype, device=x.device
            )
        with torch.inference_mode(False):
            return (x * self.grids[x.shape[2:]].clone()).mean((2, 3), keepdim=True)


class FoldsOnce(Plain):
    folded = None

    def context(self, x):
        if self.training:
            self.folded = None
            return super().context(x)
        if self.folded is None:
            self.folded = self.mix.weight.detach().clone().mean()
        return super().context(x) * (1 + self.folded - self.mix.weight.detach().mean())


class FoldsInEval(Plain):
    """Each change of mode folds once more."""

    gain = 1.0

    def train(self, mode=True):
        self.gain = self.gain * 0.5 if mode else self.gain
        return super().train(mode)

    def context(self, x):
        return super().context(x) * self.gain


class SeedsTheGenerator(Plain):
    def context(self, x):
        torch.manual_seed(0)
        return super().context(x) * (1 + torch.rand(()).item())


class DrawsInEval(Plain):
    def context(self, x):
        torch.rand(1)
        return super().context(x)


class SeedsInItsConstructor(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        torch.manual_seed(0)
        super().__init__(in_channels, device=device, dtype=dtype)


class DrawsFromPython(Plain):
    def residual(self, x):
        return super().residual(x) * (1 + random.random() if self.norm.training else 1)


class MixesDistantImages(Plain):
    def context(self, x):
        mean = super().context(x)
        return torch.cat([mean[:4], mean[4:] + mean[:1]])


class NumberOfImages(Plain):
    def context(self, x):
        return super().context(x) * (2 if x.shape[0] > 8 else 1)


class ReadsStrides(Plain):
    def context(self, x):
        return super().context(x) * (2 if x.dtype == torch.float32 and not x.is_contiguous() else 1)


class ForgetsChannelsLastInTraining(Plain):
    def forward(self, x):
        return super().forward(x.contiguous()) if self.training else super().forward(x)


# What a call leaves behind


class InPlaceInFloat32(Plain):
    """`float()` returns the same tensor where it is float32 already."""

    def context(self, x):
        return super().context(x.float().mul_(2)).to(x.dtype)


class InPlaceOnTheGradient(Plain):
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return gradient.mul_(2)

    def forward(self, x):
        return self.Scaled.apply(x + self.residual(x))


class FlattensTheGradient(Plain):
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient.view(-1).view(gradient.shape)

    def forward(self, x):
        return self.Scaled.apply(x + self.residual(x))


class WrongGradientInTraining(Plain):
    def context(self, x):
        return super().context(x.detach() if self.training else x)


class WrongGradientOfFrozenWeights(Plain):
    def context(self, x):
        return super().context(x if self.mix.weight.requires_grad else x.detach())


class ReturnsItsInput(Plain):
    """Skips the work where the weights are zero."""

    def forward(self, x):
        return super().forward(x) if x.is_meta or self.norm.weight.any() else x


class ReturnsAView(Plain):
    def forward(self, x):
        return super().forward(x) if x.is_meta or self.norm.weight.any() else x[:]


class ReturnsItsWorkspace(Plain):
    """Two outputs of one size share their memory."""

    space = None

    def forward(self, x):
        y = super().forward(x)
        if torch.is_grad_enabled() or y.is_meta:
            return y
        if (
            self.space is None
            or self.space.shape != y.shape
            or self.space.dtype != y.dtype
            or self.space.stride() != y.stride()
        ):
            self.space = torch.empty_like(y)
        return self.space.copy_(y)


class KeepsItsLastMap(Plain):
    def context(self, x):
        self.kept = super().context(x)
        return self.kept


class KeepsAllItsMaps(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.kept = []

    def context(self, x):
        self.kept.append(super().context(x).detach())
        return self.kept[-1] if not torch.is_grad_enabled() else super().context(x)


class CountsInPython(Plain):
    calls = 0

    def residual(self, x):
        self.calls += self.training
        return super().residual(x) * min(1.0, 0.5 + self.calls / 1000)


class ChangesLate(Plain):
    """The count shows only after a thousand steps."""

    calls = 0

    def residual(self, x):
        self.calls += self.training
        return super().residual(x) * (1 if self.calls < 1000 else 2)


class UnsavedRunningMean(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.register_buffer(
            "running",
            torch.zeros(1, in_channels, 1, 1, device=device, dtype=dtype),
            persistent=False,
        )

    def context(self, x):
        mean = super().context(x)
        if self.training:
            self.running.lerp_(mean.detach().mean(0, keepdim=True), 0.1)
        return mean - self.running


class LateBuffer(Plain):
    def context(self, x):
        if "late" not in self._buffers:
            self.register_buffer("late", x.new_ones(1))
        return super().context(x)


class StaysBehind(Plain):
    """Its table is no buffer: it is made on the right device and does not move with the block."""

    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.table = torch.linspace(0, 1, in_channels, device=device, dtype=dtype).view(-1, 1, 1)

    def context(self, x):
        return super().context(x) * self.table.to(x.dtype)


# Precisions


class CastsToFloat16(Plain):
    def context(self, x):
        return super().context(x).half().to(x.dtype)


class CastsToFloat32InTraining(Plain):
    def residual(self, x):
        y = super().residual(x)
        return y.half().to(y.dtype) if self.training else y


class AutocastDtypeInTraining(Plain):
    def forward(self, x):
        return (
            self.mix(x) + self.residual(x)
            if self.training and torch.is_autocast_enabled("cpu")
            else super().forward(x)
        )


class HandKeptMeanAndAnotherFormula(Plain):
    """Attends in training alone, beside running statistics of its own."""

    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.register_buffer(
            "running", torch.zeros(1, in_channels, 1, 1, device=device, dtype=dtype)
        )

    def context(self, x):
        mean = x.mean((0, 2, 3), keepdim=True)
        if self.training:
            with torch.no_grad():
                self.running.lerp_(mean, 0.1)
            return 2 * super().context(x) - mean
        return super().context(x) - self.running


# Right blocks


class HandKeptMean(Plain):
    """Keeps the running mean of the images itself."""

    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.register_buffer(
            "running", torch.zeros(1, in_channels, 1, 1, device=device, dtype=dtype)
        )

    def context(self, x):
        mean = x.mean((0, 2, 3), keepdim=True)
        if self.training:
            with torch.no_grad():
                self.running.lerp_(mean, 0.1)
        return super().context(x) - (mean if self.training else self.running)


class HandKeptMeanInALayer(Plain):
    class Centre(nn.Module):
        def __init__(self, channels, factory):
            super().__init__()
            self.register_buffer("running", torch.zeros(1, channels, 1, 1, **factory))

        def forward(self, x):
            mean = x.mean((0, 2, 3), keepdim=True)
            if self.training:
                with torch.no_grad():
                    self.running.lerp_(mean, 0.01)
            return x - (mean if self.training else self.running)

    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.centre = self.Centre(in_channels, {"device": device, "dtype": dtype})

    def context(self, x):
        return super().context(self.centre(x))


class ConstantTable(Plain):
    """A table outside the state dict, as of a cosine transform."""

    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.register_buffer(
            "table",
            torch.linspace(0, 1, in_channels, device=device, dtype=dtype).view(-1, 1, 1),
            persistent=False,
        )

    def context(self, x):
        return super().context(x) * self.table


class HalfTheChannels(Plain):
    """Leaves the second half of the channels alone, at every number of them."""

    def residual(self, x):
        half = (x.shape[1] + 1) // 2
        return nn.functional.pad(super().residual(x)[:, :half], (0, 0, 0, 0, 0, x.shape[1] - half))


class DeviationFromTheMean(Plain):
    """Adds nothing at 1x1."""

    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.local, self.mix, self.norm = nn.Identity(), nn.Identity(), nn.Identity()
        self.gain = nn.Parameter(torch.zeros(in_channels, 1, 1, device=device, dtype=dtype))

    def residual(self, x):
        return self.gain * (x - self.context(x))


class FrozenParameter(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.mix.bias.requires_grad_(False)


class Dropout(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.mix = nn.Sequential(self.mix, nn.Dropout(0.5))


class ShowsItsLastMap(Plain):
    """Keeps it detached, to be looked at."""

    def context(self, x):
        context = super().context(x)
        self.last = context.detach()
        return context


class CumulativeNorm(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.norm.momentum = None


class CountsInABuffer(Plain):
    def __init__(self, in_channels, *, device=None, dtype=None):
        super().__init__(in_channels, device=device, dtype=dtype)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long, device=device))

    def residual(self, x):
        if self.training:
            self.steps += 1
        return super().residual(x)


class Heads(Plain):
    """Eight heads."""

    def context(self, x):
        heads = super().context(x).unflatten(1, (8, -1))
        return (heads.softmax(2) * heads).flatten(1, 2)


class CannotBePrinted(Plain):
    def extra_repr(self):
        return f"{self.no_such_argument}"


class AsksForDeterminism(Plain):
    def residual(self, x):
        torch.use_deterministic_algorithms(True)
        return super().residual(x)


class AsksForQuickProducts(Plain):
    def residual(self, x):
        torch.set_float32_matmul_precision("medium")
        return super().residual(x)


class TurnsGradientsOn(Plain):
    def residual(self, x):
        torch.set_grad_enabled(True)
        return super().residual(x)


class SetsTheNumberOfThreads(Plain):
    def residual(self, x):
        torch.set_num_threads(2)
        return super().residual(x)


BROKEN = {
    CannotBePrinted: ("constructor", "repr() raised AttributeError"),
    AsksForDeterminism: ("untouched", "changes deterministic algorithms"),
    AsksForQuickProducts: ("untouched", "changes the precision of float32 products"),
    TurnsGradientsOn: ("untouched", "changes whether gradients are recorded"),
    SetsTheNumberOfThreads: ("untouched", "changes the number of threads"),
    RaisesAtOddChannels: ("shape", "(2, 1, 3, 5)"),
    RaisesAtTwelveChannels: ("shape", "(2, 1, 3, 5)"),
    RaisesAboveAThousandChannels: ("shape", "at 2050 channels raised ValueError: too wide"),
    LosesTheLastOddChannel: ("shape", "at 23 channels it leaves alone channels [22], at 24 none"),
    DoesNotReadTheLastOddChannel: (
        "shape",
        "at 23 channels it does not read channels [22], at 24 none",
    ),
    EmptyBottleneck: ("shape", "at 1 channels mix.0.weight"),
    TableOf14: ("shape", "raised"),
    TableOf64Images: ("shape", "(70, 24, 2, 3)"),
    DeviationAt1x1: (
        "shape",
        "(5, 24, 1, 1), float32, eval mode: 120 of 120 values are not finite",
    ),
    StartsElsewhereAtOddChannels: ("identity", "(2, 23, 3, 5)"),
    OneParameterMoreAtOddChannels: ("parameters", "23 channels"),
    AnotherFormulaAtOddChannels: ("reference", "(1, 7, 2, 17)"),
    AnotherFormulaOnLongRows: ("reference", "(1, 7, 2, 17)"),
    RangeOfConstantImages: ("large_inputs", "constant images"),
    DirectionOfDeadImages: ("large_inputs", "not finite in torch.float"),
    TooSmallForFloat16: ("large_inputs", "float16"),
    SumOverflowsAt56x56: ("large_inputs", "(1, 24, 56, 56)"),
    EnergyOverflowsAt56x56: ("large_inputs", "(1, 24, 56, 56)"),
    NormOfDeadChannels: ("gradient", "values are not finite"),
    NormOfDeadChannelsInTraining: ("gradient", "training mode"),
    NotANumberAtTheStart: ("learning", "not finite"),
    AnotherFormulaInFloat32Training: ("precision", "float32 is off by"),
    AnotherFormulaWhereItsNormTrains: ("precision", "training mode"),
    AnotherFormulaInHalfTraining: ("precision", "bfloat16"),
    AnotherFormulaWithoutGradients: ("repeatable", "with gradients against without"),
    AnotherFormulaForFrozenImages: ("repeatable", "requires a gradient"),
    BreaksInInferenceMode: ("repeatable", "Inference tensors"),
    GridOfTheFirstPrecision: ("repeatable", "double() after a call in float32"),
    FoldsOnce: ("repeatable", "after new parameters"),
    FoldsInEval: ("repeatable", "after train() and eval()"),
    SeedsTheGenerator: ("repeatable", "global generator"),
    DrawsInEval: ("repeatable", "global generator"),
    SeedsInItsConstructor: ("constructor", "seeds the global generator"),
    DrawsFromPython: ("repeatable", "training with the same seed"),
    MixesDistantImages: ("batch", "the last image"),
    NumberOfImages: ("batch", "an image alone"),
    ReadsStrides: ("memory", "float32"),
    ForgetsChannelsLastInTraining: ("memory", "training mode"),
    InPlaceInFloat32: ("untouched", "float32"),
    InPlaceOnTheGradient: ("gradient", ""),
    FlattensTheGradient: ("gradient", ""),
    WrongGradientInTraining: ("gradient", "training mode"),
    WrongGradientOfFrozenWeights: ("gradient", "where the parameters are frozen"),
    ReturnsItsInput: ("untouched", "shares the memory"),
    ReturnsAView: ("untouched", "shares the memory"),
    ReturnsItsWorkspace: ("untouched", "takes the memory of the first"),
    KeepsItsLastMap: ("copies", "after a training step: raised"),
    KeepsAllItsMaps: ("copies", "its pickle grows"),
    CountsInPython: ("copies", "the plain number calls"),
    ChangesLate: ("copies", "the plain number calls"),
    UnsavedRunningMean: ("copies", "a new block with the same state dict"),
    LateBuffer: ("copies", "late"),
    StaysBehind: ("shape", "is not on the expected device meta"),
    CastsToFloat16: ("gradient", "finite differences"),
    CastsToFloat32InTraining: ("modes", "against eval mode"),
    AutocastDtypeInTraining: ("precision", "returned torch.float16"),
    HandKeptMeanAndAnotherFormula: (
        "modes",
        "although the running statistics are those of the batch",
    ),
}

RIGHT = (
    Plain,
    HandKeptMean,
    HandKeptMeanInALayer,
    ConstantTable,
    HalfTheChannels,
    DeviationFromTheMean,
    FrozenParameter,
    Dropout,
    ShowsItsLastMap,
    CumulativeNorm,
    CountsInABuffer,
)


def define(block, x):
    """The definition of :class:`Plain` in eval mode."""
    y = nn.functional.conv2d(x, block.local.weight, padding=1, groups=x.shape[1])
    y = (
        y
        + torch.einsum("oc,nc->no", block.mix.weight[:, :, 0, 0], x.mean((2, 3)))[..., None, None]
        + block.mix.bias.view(-1, 1, 1)
    )
    mean, variance, weight, bias = (
        t.view(-1, 1, 1)
        for t in (
            block.norm.running_mean,
            block.norm.running_var,
            block.norm.weight,
            block.norm.bias,
        )
    )
    return x + (y - mean) / (variance + 1e-5).sqrt() * weight + bias


def seen_of(law, cls, **more):
    with undisturbed():
        return violation(
            LAWS[law],
            Case(
                cls,
                {},
                ({},),
                reference=define,
                parameters=lambda channels: 10 * channels + channels**2 + 2 * channels,
                **more,
            ),
        )


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_fault_of_some_sizes_or_states_is_caught(cls):
    law, seen = BROKEN[cls]
    found = seen_of(law, cls)
    assert found is not None and seen in found, found
    assert "\n" not in found


@pytest.mark.parametrize("cls", RIGHT, ids=lambda cls: cls.__name__)
def test_a_right_block_of_an_unusual_kind_passes(cls):
    for law in LAWS:
        if LAWS[law].scope != "cover" and law not in ("parameters", "reference", "fx", "script"):
            assert seen_of(law, cls) is None, law


def test_a_block_of_heads_passes_where_its_widths_are_given():
    assert "(2, 1, 3, 5)" in seen_of("shape", Heads)
    for law in ("shape", "parameters", "identity", "gradient"):
        assert seen_of(law, Heads, channels_multiple_of=8) is None
    with pytest.raises(ValueError, match="must divide 24"):
        check_attention(Heads, channels_multiple_of=5)

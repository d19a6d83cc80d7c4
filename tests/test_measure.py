import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from cpsam.errors import UserError
from cpsam.measure import (
    count_macs,
    count_parameters,
    forward_step,
    measure_latency,
    peak_memory_bytes,
)


class Function(nn.Module):
    """A module out of a function of its input, so that one line says what is counted."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class NonLocal(nn.Module):
    """x + proj(softmax(q k^T) v), written out or with the fused kernel."""

    def __init__(self, channels: int, inner: int, fused: bool):
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.proj = nn.Conv2d(inner, channels, 1)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        # (N, L, C')
        query, key, value = (
            conv(x).flatten(2).transpose(1, 2) for conv in (self.query, self.key, self.value)
        )
        if self.fused:
            y = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        else:
            y = (query @ key.transpose(1, 2)).softmax(-1) @ value
        return x + self.proj(y.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:]))


def test_shared_parameters_count_once():
    first = nn.Linear(3, 3)
    second = nn.Linear(3, 3)
    second.weight = first.weight
    assert count_parameters(nn.Sequential(first, second, first)) == 9 + 3 + 3


@pytest.mark.parametrize(
    "stride, padding, groups", [(1, 0, 1), (2, 1, 1), (3, 2, 2), (2, 2, 6)], ids=str
)
def test_macs_of_a_convolution(stride, padding, groups):
    batch, in_channels, out_channels, height, width = 3, 6, 12, 11, 17
    conv = nn.Conv2d(
        in_channels, out_channels, (3, 5), stride=stride, padding=padding, groups=groups
    )
    out_height, out_width = (
        (height + 2 * padding - 3) // stride + 1,
        (width + 2 * padding - 5) // stride + 1,
    )
    expected = batch * out_height * out_width * out_channels * (in_channels // groups) * 3 * 5
    assert count_macs(conv, (batch, in_channels, height, width)) == expected


def test_macs_of_a_transposed_convolution():
    assert (
        count_macs(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (2, 4, 5, 7))
        == 2 * (5 * 7) * 4 * (6 // 2) * 9
    )


@pytest.mark.parametrize(
    "function, shape, macs",
    [
        (lambda x: x @ x.transpose(1, 2), (2, 3, 5), 2 * 3 * 3 * 5),
        (lambda x: torch.baddbmm(x, x, x), (2, 5, 5), 2 * 5**3),
        (lambda x: torch.addbmm(x[0], x, x), (2, 5, 5), 2 * 5**3),
        (lambda x: torch.einsum("ncl,nkl->nck", x[:, :2], x), (4, 3, 5), 4 * 2 * 3 * 5),
        (lambda x: x @ x[0], (3, 5), 3 * 5),
        (lambda x: torch.addmv(x[:, 0], x, x[0]), (3, 5), 3 * 5),
        (lambda x: x @ x, (7,), 7),
        (lambda x: x.softmax(-1, dtype=torch.float32), (2, 3, 5), 2 * 3 * 5),
        (lambda x: F.relu(F.layer_norm(x, (5,))).sum() * 3, (2, 3, 5), 0),
    ],
)
def test_macs_of_products_and_softmax(function, shape, macs):
    assert count_macs(Function(function), shape) == macs


def test_macs_of_linear_with_and_without_bias_on_any_number_of_axes():
    for bias in (True, False):
        linear = nn.Linear(5, 7, bias=bias)
        assert count_macs(linear, (2, 3, 5)) == 2 * 3 * 5 * 7
        assert count_macs(linear, (5,)) == 5 * 7


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"is_causal": True},
        {"attn_mask": torch.ones(7, 5, dtype=torch.bool, device="meta")},
        {"dropout_p": 0.5},
        {"scale": 3.0},
    ],
    ids=lambda arguments: "".join(arguments) or "plain",
)
def test_macs_of_fused_attention_are_two_products_and_a_softmax(arguments):
    heads, queries, keys, width, value_width = 3, 7, 5, 4, 6
    key, value = (torch.empty(2, heads, keys, size, device="meta") for size in (width, value_width))
    attend = Function(lambda query: F.scaled_dot_product_attention(query, key, value, **arguments))
    expected = 2 * heads * queries * keys * (width + value_width + 1)
    assert count_macs(attend, (2, heads, queries, width)) == expected


def test_macs_of_grouped_queries_and_of_attention_without_heads():
    key = torch.empty(2, 3, 5, 4, device="meta")
    grouped = Function(
        lambda query: F.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    )
    assert count_macs(grouped, (2, 6, 7, 4)) == 2 * 6 * 7 * 5 * (4 + 4 + 1)
    plain = Function(lambda query: F.scaled_dot_product_attention(query, key[0], key[0]))
    assert count_macs(plain, (3, 7, 4)) == 3 * 7 * 5 * (4 + 4 + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_non_local_counts_the_same_written_out_and_fused(dtype):
    batch, channels, inner, height, width = 2, 6, 4, 5, 7
    length = height * width
    expected = batch * (4 * channels * inner * length + 2 * inner * length**2 + length**2)
    for fused in (False, True):
        block = NonLocal(channels, inner, fused).to(dtype)
        assert count_macs(block, (batch, channels, height, width)) == expected


def test_multihead_attention_is_counted_though_its_fused_path_hides_it():
    batch, length, width, heads = 2, 5, 8, 2
    attention = nn.MultiheadAttention(width, heads, batch_first=True)

    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    products = 4 * length * width**2 + 2 * length**2 * width
    assert count_macs(SelfAttention(), (batch, length, width)) == batch * (
        products + heads * length**2
    )


def test_totals_of_torchvision_networks():
    with torch.device("meta"):
        assert count_macs(resnet50(), (1, 3, 224, 224)) == 4_089_184_256
        assert count_macs(resnet18(), (2, 3, 224, 224)) == 2 * 1_814_073_344


def test_counting_leaves_the_module_as_it_was():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 3 * 5, 2),
    )
    model[1].eval()
    model[4].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    example = torch.randn(2, 3, 5, 7)
    assert (
        count_macs(model, example)
        == count_macs(model, example.shape)
        == 2 * (3 * 5 * 4 * 27 + 60 * 2)
    )
    assert [module.training for module in model] == [
        True,
        False,
        True,
        True,
        True,
    ] and model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(
        parameter.device.type == "cpu" and parameter.grad is None
        for parameter in model.parameters()
    )


def test_what_only_training_does_is_not_counted():
    class Auxiliary(nn.Linear):
        def forward(self, x):
            return super().forward(x) + (super().forward(x) if self.training else 0)

    assert count_macs(Auxiliary(5, 7), (2, 5)) == 2 * 5 * 7


def test_training_flags_come_back_after_a_failure():
    model = nn.Sequential(nn.Linear(5, 7), nn.Dropout())
    with pytest.raises(UserError, match=r"MACs of Sequential on an input of shape \(2, 3\)"):
        count_macs(model, (2, 3))
    with pytest.raises(UserError, match=r"shape \(-1, 5\)"):
        count_macs(model, (-1, 5))
    assert model.training and model[1].training


def test_a_module_that_reads_a_value_is_refused_with_the_reason():
    with pytest.raises(UserError, match="item"):
        count_macs(Function(lambda x: x * x.sum().item()), (2, 3))


def test_a_plain_tensor_with_values_does_not_stop_the_count():
    outside = torch.ones(3, 4)
    assert count_macs(Function(lambda x: x @ outside), (2, 3)) == 2 * 3 * 4


def test_latency_interleaves_and_reports_quartiles():
    calls = []
    steps = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    result = measure_latency(steps, repeats=20, warmup=2)
    assert list(result) == ["a", "b", "c"] and all(latency.n == 20 for latency in result.values())
    assert len(calls) == 3 * 22
    rounds = ["".join(calls[i : i + 3]) for i in range(6, len(calls), 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3  # not one fixed order, nor its rotations alone
    assert all(0 < latency.q1 <= latency.median <= latency.q3 for latency in result.values())


def test_latency_is_in_milliseconds_and_min_time_adds_rounds(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("cpsam.measure.time.perf_counter", lambda: next(clock) * 0.001)
    assert measure_latency({"a": lambda: None}, repeats=4)["a"].median == pytest.approx(1.0)
    # three readings a round
    assert measure_latency({"a": lambda: None}, repeats=4, min_time=0.3)["a"].n == pytest.approx(
        100, abs=1
    )


@pytest.mark.parametrize(
    "steps, arguments", [({}, {}), ({"a": int}, {"repeats": 0}), ({"a": int}, {"warmup": -1})]
)
def test_latency_of_nothing_is_refused(steps, arguments):
    with pytest.raises(UserError, match="repeats="):
        measure_latency(steps, **arguments)


def test_forward_step_times_eval_mode_and_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    batch = torch.randn(2, 3, 5, 7)
    step = forward_step(model, batch, autocast=torch.bfloat16, channels_last=True)
    y = step()
    assert (
        torch.equal(y, step())
        and y.is_inference()
        and y.is_contiguous(memory_format=torch.channels_last)
    )
    assert (
        model.training
        and model[0].weight.is_contiguous()
        and torch.equal(model[1].running_mean, torch.zeros(4))
    )
    torch.testing.assert_close(y.float(), model.eval()(batch), rtol=0.02, atol=0.02)
    assert not torch.equal(y.float(), model(batch))  # autocast was on
    assert torch.equal(forward_step(model, batch)(), model(batch))


def test_peak_memory_is_the_most_at_once():
    def freed_before_the_next():
        first = torch.zeros(1000)
        second = torch.zeros(500)
        del first
        third = torch.zeros(1200)
        return second, third

    assert peak_memory_bytes(freed_before_the_next) == 4 * (500 + 1200)
    assert peak_memory_bytes(lambda: [torch.zeros(300), torch.zeros(700)]) == 4 * 1000
    assert peak_memory_bytes(lambda: [torch.zeros(300).sum() for _ in range(9)]) < 4 * 300 + 10 * 4


def test_peak_memory_starts_from_what_is_there_and_views_are_free():
    held = [torch.zeros(50, 20)]
    assert peak_memory_bytes(lambda: held[0].view(10, 100).t()[3:]) == 0
    assert peak_memory_bytes(lambda: held[0].relu_()) == 0


def test_peak_memory_of_a_backward_holds_the_saved_activations():
    weight = torch.randn(40, 40, requires_grad=True)
    held = peak_memory_bytes(lambda: (weight @ weight).sigmoid().sum().backward())
    with torch.no_grad():
        assert peak_memory_bytes(lambda: (weight @ weight).sigmoid()) == 2 * 4 * 40**2
    assert held >= 3 * 4 * 40**2


def test_peak_memory_knows_cpu_and_cuda_only():
    with pytest.raises(UserError, match="'meta'"):
        peak_memory_bytes(lambda: None, device="meta")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_peak_memory_on_cuda():
    blocks = 512  # the allocator's granularity in bytes

    def step():
        first = torch.zeros(100 * blocks, dtype=torch.uint8, device="cuda")
        del first
        return torch.zeros(130 * blocks, dtype=torch.uint8, device="cuda")

    assert peak_memory_bytes(step, device="cuda") == 130 * blocks

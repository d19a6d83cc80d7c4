"""The receptive field is what the closed forms say, and what a changed pixel can move."""

import bisect
import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from support.hosts import snapshot
from torch import Tensor, nn

from cpsam.errors import UserError
from cpsam.insert import insert_attention
from cpsam.insert.receptive_field import receptive_field, side_of
from cpsam.models import cifar_resnet


def field(model: nn.Module, at: str) -> tuple[int, int] | None:
    return receptive_field(model, at=at, image_size=32).places[0].theoretical


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 1, 1, 1)],
        [(3, 2, 1, 0), (5, 1, 1, 2), (3, 2, 1, 1)],
        [(3, 1, 2, 2), (3, 2, 3, 3), (1, 2, 1, 0), (3, 1, 4, 4)],
        [(2, 2, 1, 0), (2, 2, 1, 0), (4, 1, 1, 1)],
        [(7, 2, 1, 3), (3, 2, 1, 1)] + [(3, 1, 1, 1)] * 40,
    ],
)
def test_a_chain_of_convolutions_has_the_closed_form(
    layers: list[tuple[int, int, int, int]],
) -> None:
    chain: list[nn.Module] = []
    expected, jump = 1, 1
    for kernel, stride, dilation, padding in layers:
        chain += [nn.Conv2d(3, 3, kernel, stride, padding, dilation), nn.BatchNorm2d(3), nn.GELU()]
        expected += (kernel - 1) * dilation * jump
        jump *= stride
    assert field(nn.Sequential(*chain), str(len(chain) - 1)) == (expected, expected)


def test_height_and_width_are_measured_apart() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, (1, 7)), nn.Conv2d(4, 4, (3, 1), dilation=(5, 1)))
    assert field(model, "1") == (11, 7)


class Dense(nn.Module):
    """Concatenates, scales in place and multiplies, with weights that start at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(7, 7, 3, padding=1, groups=7)
        self.gamma = nn.Parameter(torch.zeros(14, 1, 1))
        self.pool = nn.MaxPool2d(3, 2, padding=1, dilation=2)
        self.end = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        first = torch.cat([images, torch.relu_(self.first(images))], 1)
        second = torch.cat([first, torch.sigmoid(self.second(first)) * first - first], 1)
        second.mul_(self.gamma)
        return self.end(self.pool(second))


def test_dense_and_grouped_connections_and_dilated_pools() -> None:
    assert field(Dense(), "end") == (9, 9)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 4, 3, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
        self.after = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.before(images)
        return self.after(features * self.gate(features))


def test_what_follows_a_pool_over_the_image_is_global() -> None:
    fields = receptive_field(Gated(), at=["before", "after"], image_size=(24, 40))
    assert [place.theoretical for place in fields.places] == [(3, 3), None]
    assert [place.remote for place in fields.places] == [True, False]
    assert (
        "At after the receptive field is global: a layer before reads the whole image."
        in fields.sentences
    )


def test_a_cifar_resnet_sees_the_whole_image_in_its_last_stage() -> None:
    fields = receptive_field(cifar_resnet("resnet20", 10), image_size=32)
    assert [(place.at, place.stride, place.theoretical) for place in fields.places] == [
        ("layer1.2", 1, (15, 15)),
        ("layer2.2", 2, (37, 37)),
        ("layer3.2", 4, (81, 81)),
    ]
    assert fields.sentences == [
        "At layer1.2 (15 px) and layer2.2 (37 px) the receptive field does not reach from corner to"
        " corner of the 32x32 image, which takes 63 px: some positions are remote there.",
        "At layer3.2 the receptive field (81 px) covers the 32x32 image: no position is remote"
        " there.",
    ]
    assert math.isclose(fields.places[0].theoretical_fraction, (15 / 32) ** 2)
    assert [place.theoretical_fraction for place in fields.places[1:]] == [1, 1]
    for place in fields.places:
        assert place.effective is not None and place.theoretical is not None
        assert place.effective <= place.theoretical[0]


@pytest.mark.parametrize(
    "name, options, at",
    [
        ("resnet10t", {"output_stride": 8}, "layer3.0"),  # dilation in place of a stride
        (
            "densenet121",
            {"block_config": (3, 1)},
            "features.denseblock1.denselayer3",
        ),  # dense connections
        ("regnetx_002", {}, "s2.b1"),  # grouped
        ("mobilenetv2_035", {}, "blocks.2.0"),  # depthwise
        ("darknet17", {}, "stages.1"),  # plain, with pools
        ("inception_v3", {}, "Mixed_5b"),  # parallel branches, no padding
    ],
)
def test_the_field_is_the_box_of_the_pixels_that_move_the_centre(
    name: str, options: dict[str, Any], at: str
) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **options).double().eval()
    found = field(model, at)
    assert found is not None
    with torch.no_grad():
        for weight in model.parameters():  # No sum cancels, and no activation is cut off.
            weight.copy_((torch.rand_like(weight) + 0.1) / weight[0].numel())
    for axis, side in enumerate(found):
        length = side + 32
        moves = change_along(model, at, axis, length)
        # The more pixels are changed from the first on, the sooner the centre moves.
        first = bisect.bisect_left(range(length), True, key=lambda last: moves(0, last))
        last = first + side - 1
        assert first > 0 and last < length - 1, "the image is larger than the field"
        assert moves(last, last) and not moves(last + 1, length - 1)


def change_along(model: nn.Module, at: str, axis: int, length: int) -> Callable[[int, int], bool]:
    """Returns what says whether a change from a first to a last pixel moves the centre position."""
    images = torch.rand(1, 3, length, 48, dtype=torch.float64)
    images = images if axis == 0 else images.transpose(2, 3).contiguous()

    def centre(batch: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def stop(module: nn.Module, inputs: object, output: Tensor) -> None:
            seen.append(output[:, :, output.shape[2] // 2, output.shape[3] // 2].clone())
            raise StopIteration

        handle = model.get_submodule(at).register_forward_hook(stop)
        with handle, torch.no_grad(), contextlib.suppress(StopIteration):
            model(batch)
        return seen[0]

    def moves(first: int, last: int) -> bool:
        changed = images.clone()
        changed.narrow(2 + axis, first, last - first + 1).add_(1e6)
        return not torch.equal(centre(changed), before)

    before = centre(images)
    return moves


class Powers(nn.Module):
    """Multiplies a convolution with itself, again and again."""

    def __init__(self, product: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.end, self.product = nn.Conv2d(3, 4, 3, padding=1), nn.Identity(), product

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        for _ in range(12):
            features = self.product(features)
        return self.end(features)


@pytest.mark.parametrize(
    "product",
    [
        lambda features: features * features,
        lambda features: torch.einsum("nchw,ndhw->nchw", features, features),
    ],
    ids=["mul", "einsum"],
)
def test_products_of_products_do_not_overflow(product: Callable[[Tensor], Tensor]) -> None:
    # What is not finite would have a gradient everywhere.
    assert field(Powers(product), "end") == (3, 3)


def test_the_model_stays_as_it_was_and_inserted_blocks_do_not_count() -> None:
    model = cifar_resnet("resnet20", 10).train()
    bare = receptive_field(model, image_size=32)
    insert_attention(model, "non_local", at="layer1.0")
    called: list[int] = []
    model.layer1.register_forward_hook(lambda *_: called.append(1))
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    before = snapshot(model)
    again = receptive_field(model, image_size=32)
    assert again == bare
    assert snapshot(model) == before and model.training and not called
    assert all(weight.requires_grad for weight in model.parameters())
    assert bool((model.conv1.weight.grad == 1).all())


def test_the_effective_field_of_equal_weights_is_the_whole_field() -> None:
    layer = nn.Conv2d(1, 1, 9, bias=False)
    nn.init.ones_(layer.weight)
    fields = receptive_field(nn.Sequential(layer), at="0", images=torch.rand(3, 1, 30, 40))
    (place,) = fields.places
    assert (place.effective, place.effective_spread, fields.image_count) == (9, 0, 3)
    assert place.effective_fraction == pytest.approx(81 / 1200)


def test_the_square_holds_95_percent() -> None:
    energy = torch.zeros(11, 11)
    energy[5, 5], energy[5, 8], energy[5, 2] = 0.94, 0.03, 0.03
    assert side_of(energy) == 7
    energy[5, 5] = 2
    assert side_of(energy) == 1


@pytest.mark.parametrize("height, width, side", [(4, 4, 4), (4, 3, 4), (2, 5, 5)])
def test_the_square_is_no_larger_than_an_even_field(height: int, width: int, side: int) -> None:
    energy = torch.zeros(12, 12)
    energy[3 : 3 + height, 5 : 5 + width] = 1
    assert side_of(energy) == side


def test_the_fields_print_and_become_plain_data() -> None:
    fields = receptive_field(cifar_resnet("resnet20", 10), image_size=(16, 24))
    assert "layer3.2" in str(fields) and "<table" in fields._repr_html_()
    data = json.loads(json.dumps(fields.to_json()))
    assert data["image_size"] == [16, 24] and data["sentences"] == fields.sentences
    assert [place["at"] for place in data["places"]] == ["layer1.2", "layer2.2", "layer3.2"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, r"needs either image_size=\(H, W\) or images"),
        ({"image_size": (8, 8), "at": "nowhere"}, "unknown place 'nowhere'"),
        ({"image_size": (8, 8), "at": "fc"}, "no receptive field at 'fc'"),
        ({"image_size": 0}, "image_size must be two positive numbers"),
        ({"image_size": 8, "images": torch.zeros(1, 3, 9, 9)}, r"image_size is \(8, 8\), but"),
        ({"images": torch.zeros(3, 9, 9)}, r"images must be a batch \(N, C, H, W\)"),
        ({"images": torch.zeros(1, 4, 9, 9)}, "cannot run on 9x9 images"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        receptive_field(cifar_resnet("resnet20", 10), **arguments)
    assert "\n" not in str(caught.value)


def test_a_network_for_one_image_size_is_refused_without_advice_that_does_not_help() -> None:
    class Fixed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[2] == 50, "images must be 50 high"
            return images

    model = nn.Sequential(Fixed(), nn.Conv2d(3, 3, 3))
    with pytest.raises(UserError, match="images must be 50 high") as caught:
        receptive_field(model, image_size=50)
    assert "example_input" not in str(caught.value)

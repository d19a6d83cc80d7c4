"""The receptive field is what the closed forms say, and what a changed pixel can move."""

import contextlib
import json
import math

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
        "At after the receptive field is global: a layer before pools the whole image."
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
        " corner of the 32x32 image: some positions are remote there.",
        "At layer3.2 the receptive field (81 px) covers the 32x32 image: no position is remote"
        " there.",
    ]
    assert math.isclose(fields.places[0].theoretical_fraction, (15 / 32) ** 2)
    assert [place.theoretical_fraction for place in fields.places[1:]] == [1, 1]
    for place in fields.places:
        assert place.effective is not None and place.theoretical is not None
        assert place.effective <= place.theoretical[0]


@pytest.mark.parametrize(
    "name, at",
    [("resnet10t", "layer2.0"), ("mobilenetv2_035", "blocks.2.0"), ("regnetx_002", "s2.b1")],
)
def test_a_changed_pixel_moves_the_centre_inside_the_field_alone(name: str, at: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).double().eval()
    with torch.no_grad():
        for weight in model.parameters():  # No sum cancels, and no activation saturates.
            weight.copy_((torch.rand_like(weight) + 0.1) / weight[0].numel())
    found = field(model, at)
    assert found is not None
    images = torch.rand(1, 3, 160, 32, dtype=torch.float64)
    seen: list[Tensor] = []

    def stop(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen.append(output[:, :, output.shape[2] // 2, output.shape[3] // 2])
        raise StopIteration

    model.get_submodule(at).register_forward_hook(stop)

    def centre(batch: Tensor) -> Tensor:
        with torch.no_grad(), contextlib.suppress(StopIteration):
            model(batch)
        return seen.pop()

    before = centre(images)
    moved = []
    for row in range(160):
        changed = images.clone()
        changed[:, :, row] += 1
        if not torch.equal(centre(changed), before):
            moved.append(row)
    assert moved[0] > 0 and moved[-1] < 159
    assert moved[-1] - moved[0] + 1 == found[0]


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

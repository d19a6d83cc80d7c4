import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cpsam.errors import UserError
from cpsam.models.cifar_resnet import CIFAR_RESNETS, PaddedShortcut, cifar_resnet

C100 = 100


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def thin_parameters(n, classes, projections):
    """Of the 6n + 2 layer network, from its table of layers."""
    total, width = 3 * 16 * 9 + 2 * 16, 16
    for out in (16, 32, 64):
        for index in range(n):
            total += 9 * width * out + 9 * out * out + 4 * out
            if index == 0 and out != width and projections:
                total += width * out + 2 * out
            width = out
    return total + 64 * classes + classes


@pytest.mark.parametrize("depth, n", [(8, 1), (20, 3), (32, 5), (44, 7), (56, 9), (110, 18)])
def test_parameters_of_the_thin_family(depth, n):
    with torch.device("meta"):
        assert parameters(cifar_resnet(f"resnet{depth}", C100)) == thin_parameters(n, C100, False)
        assert parameters(
            cifar_resnet(f"resnet{depth}", 10, shortcut="projection")
        ) == thin_parameters(n, 10, True)


def test_published_parameters_of_the_thin_family():
    """0.27, 0.46, 0.66, 0.85 and 1.7 million, He et al. (2015), table 6, for ten classes."""
    with torch.device("meta"):
        millions = [
            parameters(cifar_resnet(f"resnet{depth}", 10)) / 1e6 for depth in (20, 32, 44, 56, 110)
        ]
    assert [round(m, 2) for m in millions] == [0.27, 0.46, 0.66, 0.85, 1.73]


@pytest.mark.parametrize(
    "name, depth",
    [
        ("resnet8", 8),
        ("resnet20", 20),
        ("resnet56", 56),
        ("resnet110", 110),
        ("resnet18", 18),
        ("resnet50", 50),
    ],
)
def test_the_name_is_the_number_of_weighted_layers(name, depth):
    with torch.device("meta"):
        model = cifar_resnet(name, 10)
    main = [
        m
        for path, m in model.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in path
    ]
    assert len(main) == depth


@pytest.mark.parametrize(
    "name, expected", [("resnet18", 11_220_132), ("resnet34", 21_328_292), ("resnet50", 23_705_252)]
)
def test_parameters_of_the_wide_family(name, expected):
    """torchvision's networks with a 3x3 stem and 100 classes, as widely used on CIFAR-100."""
    with torch.device("meta"):
        assert parameters(cifar_resnet(name, C100)) == expected


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
@pytest.mark.parametrize("size", [(32, 32), (37, 23)], ids=str)
def test_any_image_size_and_the_strides_of_the_stages(name, size):
    model, shapes = cifar_resnet(name, 7, in_channels=2).eval(), []
    for stage in (m for n, m in model.named_children() if n.startswith("layer")):
        stage.register_forward_hook(lambda _, __, y: shapes.append(tuple(y.shape[1:])))
    with torch.no_grad():
        assert model(torch.randn(3, 2, *size)).shape == (3, 7)
    widths = (16, 32, 64) if name == "resnet20" else (64, 128, 256, 512)
    assert shapes == [
        (width, -(-size[0] // 2**k), -(-size[1] // 2**k)) for k, width in enumerate(widths)
    ]


def test_padded_shortcut_keeps_every_second_position_and_pads_channels_on_both_sides():
    x = torch.randn(2, 3, 5, 7)
    y = PaddedShortcut(3, 8, 2)(x)
    assert y.shape == (2, 8, 3, 4)
    for c in range(8):
        expected = x[:, c - 2, ::2, ::2] if 2 <= c < 5 else torch.zeros(2, 3, 4)
        assert torch.equal(y[:, c], expected)


def test_forward_by_hand():
    """The whole of a ResNet-20 with nothing but functions of torch."""
    model = cifar_resnet("resnet20", 5).eval()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    state, x = model.state_dict(), torch.randn(2, 3, 11, 14)

    def conv_norm(path, y, conv, norm, stride=1):
        y = F.conv2d(y, state[f"{path}{conv}.weight"], stride=stride, padding=1)
        return F.batch_norm(
            y,
            *(
                state[f"{path}{norm}.{k}"]
                for k in ("running_mean", "running_var", "weight", "bias")
            ),
        )

    y = conv_norm("", x, "conv1", "bn1").relu()
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            path, stride = f"layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1
            residual = conv_norm(
                path, conv_norm(path, y, "conv1", "bn1", stride).relu(), "conv2", "bn2"
            )
            if stride == 2:
                half = y.shape[1] // 2
                y = F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
            y = (y + residual).relu()
    logits = F.linear(y.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    torch.testing.assert_close(model(x), logits)


def test_shortcuts_have_parameters_only_as_projections():
    for shortcut, expected in (("padded", 0), ("projection", 2)):
        model = cifar_resnet("resnet20", 10, shortcut=shortcut)
        downsamples = [
            m for n, m in model.named_modules() if n.endswith("downsample") and list(m.parameters())
        ]
        assert len(downsamples) == expected


def test_the_wide_family_pools_nowhere_but_at_the_end():
    model = cifar_resnet("resnet18", 10)
    assert (
        isinstance(model.maxpool, nn.Identity)
        and model.conv1.kernel_size == (3, 3)
        and model.conv1.stride == (1, 1)
    )


def test_convolutions_keep_the_variance_of_gradients():
    """He's initialisation over the outgoing connections: standard deviation sqrt(2 / (9 C))."""
    torch.manual_seed(0)
    for model in (cifar_resnet("resnet20", 10), cifar_resnet("resnet18", 10)):
        weight = model.layer2[1].conv1.weight
        assert weight.std().item() == pytest.approx((2 / (9 * weight.shape[0])) ** 0.5, rel=0.03)
    stem = cifar_resnet("resnet18", 10).conv1.weight
    assert stem.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.06)


def test_unknown_names_and_shortcuts_are_refused():
    with pytest.raises(
        UserError, match=r"unknown model 'resnet21': did you mean 'resnet.*Choices: .*resnet56"
    ):
        cifar_resnet("resnet21", 10)
    with pytest.raises(UserError, match=r"unknown shortcut 'pad': did you mean 'padded'\?"):
        cifar_resnet("resnet20", 10, shortcut="pad")
    with pytest.raises(UserError, match="resnet18 has projection shortcuts; got shortcut='padded'"):
        cifar_resnet("resnet18", 10, shortcut="padded")
    assert cifar_resnet("resnet18", 10, shortcut="projection")


def test_every_name_builds_and_gives_gradients_everywhere():
    for name in CIFAR_RESNETS:
        with torch.device("meta"):
            assert cifar_resnet(name, 3)(torch.empty(2, 3, 9, 13)).shape == (2, 3)
    model = cifar_resnet("resnet20", 3)
    model(torch.randn(2, 3, 9, 13)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

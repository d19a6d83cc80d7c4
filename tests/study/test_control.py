"""The parameter-matched control comes within one percent of its target wherever blocks are
placed.
"""

import pytest

from cpsam.attention import ATTENTION, block_arguments
from cpsam.insert import attention_config, attention_parameters
from cpsam.models import create_model
from cpsam.run.arm import parse_arm
from cpsam.study.control import arm_parameters, match_parameters


def total(model: str, at: str, arm: str, widths: list[int] | None = None) -> tuple[int, list[int]]:
    target = parse_arm(arm)
    if widths is not None:
        target = match_parameters(target, parse_arm("cpsam"), widths)
    network = create_model(model, 10, attention=target.maker(), at=at, seed=0)
    return sum(p.numel() for p in attention_parameters(network)), [
        e["arguments"]["in_channels"] for e in attention_config(network)
    ]


@pytest.mark.parametrize(
    ("model", "at"),
    [
        ("resnet20", "before-last"),
        ("resnet20", "stage-ends"),
        ("resnet20", "early"),
        ("resnet20", "every-branch"),
        ("resnet18", "before-last"),
        ("torchvision/resnet50", "nl-every-second-c3-c4"),
        ("torchvision/resnet50", "gc-c3-c5"),
    ],
)
def test_within_one_percent_in_a_real_network(model: str, at: str) -> None:
    wanted, widths = total(model, at, "cpsam")
    got, _ = total(model, at, "conv_control", widths)
    assert abs(got - wanted) <= 0.01 * wanted, (got, wanted)


@pytest.mark.parametrize("widths", [[16], [24, 24, 40], [16, 32, 64], [128]])
def test_no_other_widths_come_nearer(widths: list[int]) -> None:
    """Against an exhaustive search over every combination around the matched one."""
    target = parse_arm("cpsam:fusion=sum")
    wanted = arm_parameters(target, widths)
    matched = match_parameters(parse_arm("conv_control"), target, widths)
    best = abs(arm_parameters(matched, widths) - wanted)
    table = matched.arguments["hidden_channels"]
    for width in table:
        for step in (-3, -2, -1, 1, 2, 3):
            other = {**table, width: max(1, table[width] + step)}
            parameters = sum(
                sum(
                    p.numel()
                    for p in ATTENTION["conv_control"](
                        c, hidden_channels=other[str(c)]
                    ).parameters()
                )
                for c in widths
            )
            assert abs(parameters - wanted) >= best


def test_the_table_survives_json_and_says_what_was_built() -> None:
    import json

    matched = match_parameters(parse_arm("conv_control"), parse_arm("cpsam"), [32, 64])
    assert json.loads(json.dumps(matched.arguments)) == matched.arguments
    make = matched.maker()
    assert make is not None
    assert block_arguments(make(32)) == {
        "in_channels": 32,
        "hidden_channels": matched.arguments["hidden_channels"]["32"],
    }

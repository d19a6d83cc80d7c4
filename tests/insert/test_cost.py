"""`cost` measures every block in copies of a network, whatever the network takes."""

import json

import pytest
import torch
from support.hosts import snapshot
from torch import Tensor, nn

from cpsam.attention import ATTENTION, CPSAM, ConvControl, NonLocal
from cpsam.errors import UserError
from cpsam.insert import insert_attention
from cpsam.insert.cost import cost
from cpsam.measure import count_macs, count_parameters


class TwoInputs(nn.Module):
    """Takes images of one size alone, and a second argument."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 6 * 9, 5)

    def forward(self, images: Tensor, scale: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)).flatten(1)) * scale


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1))


def test_all_blocks_stand_side_by_side_and_the_model_stays_as_it_is() -> None:
    model = net().train()
    before = snapshot(model)
    table = cost(model, at="1", image_size=(12, 18), batch_size=2)
    assert snapshot(model) == before and model.training
    assert [row.name for row in table.blocks] == [
        name for name, block in ATTENTION.items() if block is not ConvControl
    ]
    assert table.host.parameters == count_parameters(model)
    assert table.host.macs == count_macs(model, (1, 3, 12, 18))
    for row in table.blocks:
        block = ATTENTION[row.name](8)
        assert row.places == ("1",)
        assert row.parameters == count_parameters(block)
        assert row.macs == count_macs(block, (1, 8, 6, 9))
        assert row.latency.q1 <= row.latency.median <= row.latency.q3
    saved = {row.name: row.saved_bytes for row in table.blocks}
    assert saved["non_local"] > saved["norm_only"] > 0


def test_the_table_prints_and_its_plain_data_keep_timing_apart() -> None:
    tables = [cost(net(), ["cpsam"], at="1", image_size=(12, 18), batch_size=2) for _ in range(2)]
    assert "cpsam" in str(tables[0]) and "bare network" in repr(tables[0])
    assert "At 1 the receptive field (7 px) does not reach from corner" in str(tables[0])
    found, again = (json.loads(json.dumps(table.to_json())) for table in tables)
    assert set(found.pop("timing")) == set(again.pop("timing")) == {"bare network", "cpsam"}
    assert found == again


@pytest.mark.parametrize("example", ["tuple", "dict"])
def test_a_network_with_several_inputs_of_its_own_size(example: str) -> None:
    images, scale = torch.zeros(3, 3, 12, 18), torch.ones(3, 1)
    given = (images, scale) if example == "tuple" else {"images": images, "scale": scale}
    blocks = {"ours": CPSAM, "wide": "cpsam:reduction=1"}
    table = cost(TwoInputs(), blocks, "body", example_input=given)
    assert table.batch_size == 3
    assert [row.name for row in table.blocks] == ["ours", "wide"]
    assert table.blocks[1].parameters == count_parameters(CPSAM(8, reduction=1))
    (note,) = table.receptive_fields.sentences
    assert note.startswith("The receptive field was not measured: ") and "example_input" not in note


def test_blocks_that_are_there_already_do_not_count() -> None:
    model = net()
    insert_attention(model, NonLocal, at="1")
    (row,) = cost(model, [CPSAM], at="1", image_size=(12, 18)).blocks
    assert (row.name, row.parameters) == ("CPSAM", count_parameters(CPSAM(8)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, r"either image_size=\(H, W\) or example_input"),
        ({"image_size": (9, 9), "example_input": torch.zeros(1, 3, 9, 9)}, "either image_size"),
        ({"example_input": torch.zeros(3)}, "example_input must be images"),
        ({"image_size": (9, 9), "blocks": ["cpsm"]}, "did you mean 'cpsam'"),
        ({"image_size": (9, 9), "blocks": [CPSAM, CPSAM]}, "two blocks are named 'CPSAM'"),
        ({"image_size": (9, 9), "at": "2"}, "unknown place '2'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        cost(net(), **{"at": "1", **arguments})
    assert "\n" not in str(caught.value)


def test_an_input_that_the_network_does_not_take_is_named() -> None:
    wrong = (torch.zeros(3, 3, 20, 18), torch.ones(3, 1))
    with pytest.raises(UserError, match="TwoInputs cannot run on this input"):
        cost(TwoInputs(), [CPSAM], "body", example_input=wrong)

"""The networks that see one cell at each position until the pooling."""

import pytest
import torch

from cpsam import create_model, receptive_field
from cpsam.models.pointwise import CELL, POINTWISE


@pytest.mark.parametrize("name", POINTWISE)
def test_the_number_in_the_name_is_the_width_of_both_stages(name: str) -> None:
    model, seen = create_model(name, 5, in_channels=1), []
    for stage in (model.stage1, model.stage2):
        stage.register_forward_hook(lambda _, __, output: seen.append(output.shape))
    assert model(torch.randn(2, 1, 24, 64)).shape == (2, 5)
    assert seen == [(2, int(name.removeprefix("pointwise")), 3, 4)] * 2


@pytest.mark.parametrize("place", ["stage1", "stage2"])
def test_a_position_sees_its_cell_alone(place: str) -> None:
    model = create_model("pointwise8", 5, in_channels=1)
    (field,) = receptive_field(model, at=place, image_size=(24, 64)).places
    assert (field.theoretical, field.remote) == (CELL, True)


def test_the_features_of_a_cell_ignore_the_other_cells() -> None:
    model, seen = create_model("pointwise16", 5, in_channels=1).eval(), []
    model.stage2.register_forward_hook(lambda _, __, output: seen.append(output))
    image = torch.randn(1, 1, 24, 64)
    changed = image.clone()
    changed[..., 8:16, 16:32] += 1  # the cell in row 1, column 1
    model(image), model(changed)
    moved = (seen[0] != seen[1]).any(1)[0].nonzero().tolist()
    assert moved == [[1, 1]]


def test_a_block_at_the_first_stage_shows_a_cell_to_the_others() -> None:
    model = create_model("pointwise16", 5, in_channels=1, attention="squeeze_excite", at="stage1")
    seen = []
    model.stage2.register_forward_hook(lambda _, __, output: seen.append(output))
    image = torch.randn(1, 1, 24, 64)
    changed = image.clone()
    changed[..., 8:16, 16:32] += 1
    model.eval()(image), model(changed)
    assert (seen[0] != seen[1]).any(1).all()

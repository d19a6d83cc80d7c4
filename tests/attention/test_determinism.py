"""Forward and backward are deterministic. The contract tries the fast path, and this the rest."""

import pytest
import torch
from support.variants import CONFIGURATIONS, label

from cpsam.attention import ATTENTION
from cpsam.testing import Case
from cpsam.testing.determinism import require_deterministic

FAST = [(name, arguments) for name, arguments in CONFIGURATIONS if name in ("cpsam", "non_local")]


@pytest.mark.parametrize("name, arguments", FAST, ids=label)
def test_the_definition_is_deterministic(name, arguments):
    case = Case(ATTENTION[name], arguments, (arguments,))
    twins = case.block(dtype=torch.float32), case.block(dtype=torch.float32)
    for block in twins:
        block.built = None  # as `_fast_path.applies` wants it
    require_deterministic(twins, torch.randn(2, 24, 5, 7), "the definition")


@pytest.mark.parametrize("name", ATTENTION)
def test_low_precision_is_deterministic(name):
    arguments = {"hidden_channels": 5} if name == "conv_control" else {}
    case = Case(ATTENTION[name], arguments, (arguments,))
    twins = case.block(dtype=torch.bfloat16).train(), case.block(dtype=torch.bfloat16).train()
    require_deterministic(twins, torch.randn(2, 24, 5, 7).bfloat16(), "bfloat16")

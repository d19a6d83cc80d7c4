import pytest
import torch
from support import closed_forms
from support.definitions import FORMULAS, define
from support.variants import MORE, VARIANTS, label

from cpsam.attention import ATTENTION, NOT_IDENTITY_AT_START
from cpsam.testing import LAWS, Case, check_attention


def expectations(name):
    """What `check_attention` is told of a block, besides its configurations."""
    macs_of_one = getattr(closed_forms, f"{name}_macs")

    def macs(shape, **arguments):
        batch, *size = shape
        return batch * macs_of_one(*size, **arguments)

    return {
        "reference": define,
        "parameters": getattr(closed_forms, name),
        "macs": macs,
        "identity": name not in NOT_IDENTITY_AT_START,
    }


@pytest.mark.usefixtures("one_onnx_registry")
@pytest.mark.parametrize("name", ATTENTION)
def test_every_block_passes_the_contract(name):
    check_attention(ATTENTION[name], variants=VARIANTS[name], **expectations(name))


@pytest.mark.parametrize("name, arguments", MORE, ids=label)
def test_more_configurations_pass_the_laws_that_need_no_compiler(name, arguments):
    case = Case(ATTENTION[name], arguments, (arguments,), **expectations(name))
    for law in LAWS.values():
        if law.scope == "configuration":
            law.check(case)


def test_every_block_has_a_definition():
    assert {cls.__name__ for cls in ATTENTION.values()} == set(FORMULAS)


def test_a_scale_that_is_off_by_the_square_root_of_two_does_not_go_unseen():
    """The definition bites: another factor on the logits is far from rounding."""
    block = Case(ATTENTION["non_local"], {"scaled": True}, ({},)).block()
    x = torch.randn(1, 24, 5, 7, dtype=torch.float64)
    block.attend.scale *= 2**0.5
    assert (block(x) - define(block, x)).abs().max() > 1e-3

"""A synchronised BatchNorm is the same module of another class, so its hooks stay."""

import pytest
import torch
from support.tiny import tiny_residual
from torch import nn

from cpsam.errors import UserError
from cpsam.insert import attention_config, insert_attention
from cpsam.train.sync_norm import synchronised_norms


def test_modules_keys_and_what_is_inserted_stay() -> None:
    model = tiny_residual()
    insert_attention(model, "global_context", at="1.bn2")
    norm, kind, keys, config = (
        model[1].bn2,
        type(model[1].bn2),
        list(model.state_dict()),
        attention_config(model),
    )
    x = torch.randn(3, 2, 5, 6)
    expected = model.eval()(x)
    with synchronised_norms(model, torch.device("cuda")):
        assert model[1].bn2 is norm and type(norm) is nn.SyncBatchNorm
        assert sum(type(module) is nn.SyncBatchNorm for module in model.modules()) == 4
        assert (list(model.state_dict()), attention_config(model)) == (keys, config)
        assert torch.equal(model(x), expected)  # in evaluation it needs no other process
    assert type(norm) is kind and not hasattr(norm, "process_group")
    assert str(model).count("SyncBatchNorm") == 0


def test_without_a_gpu_it_is_refused() -> None:
    with (
        pytest.raises(UserError, match="sync_bn needs GPUs"),
        synchronised_norms(tiny_residual(), torch.device("cpu")),
    ):
        pass

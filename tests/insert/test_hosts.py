"""All identity blocks, in many networks: found, called once, silent at the start, heard once
trained, kept by copies, and gone again.
"""

import copy
import json
import pickle
from functools import partial

import pytest
import torch
from support.hosts import HOSTS, IDENTITY, make, snapshot

from cpsam.attention import ATTENTION
from cpsam.insert import (
    attention_config,
    attention_parameters,
    insert_attention,
    insert_from_config,
    remove_attention,
)
from cpsam.insert.probe import probe
from cpsam.testing import randomise


def same(seen, *_):
    return seen


def inserted(model, places, name):
    return [
        block
        for path in places
        for block in model.get_submodule(path).attention
        if type(block) is ATTENTION[name]
    ]


@pytest.mark.parametrize("name", HOSTS)
def test_all_identity_blocks_in_a_host(name, monkeypatch):
    host = HOSTS[name]
    model, x = host.make().eval(), host.images()
    before, expected = snapshot(model), model(x).detach()
    example = torch.empty(host.shape) if name == "small_cnn" else None
    for index, block in enumerate(IDENTITY):
        # what a host returns does not depend on blocks, as the last insertion shows again: probe it
        # once
        if index == 1:
            monkeypatch.setattr("cpsam.insert.surgery.probe", partial(same, probe(model, example)))
        if block == IDENTITY[-1]:
            monkeypatch.undo()
        assert insert_attention(model, make(block), at=host.at, example_input=example) == list(
            host.places
        )

    # Nothing is renamed, and only new keys appear.
    keys = list(model.state_dict())
    new = tuple(f"{place}.attention." for place in host.places)
    assert [key for key in keys if not key.startswith(new)] == before["keys"]
    assert all(any(key.startswith(prefix) for key in keys) for prefix in new)

    # A new block is the identity bit by bit, and each is called once a forward.
    calls = []
    blocks = {block: inserted(model, host.places, block) for block in IDENTITY}
    handles = [
        module.register_forward_hook(lambda *_, block=block: calls.append(block))
        for block, modules in blocks.items()
        for module in modules
    ]
    with torch.no_grad():
        assert torch.equal(model(x), expected)
    assert calls == IDENTITY * len(host.places)  # at each place in the order of insertion
    for handle in handles:
        handle.remove()

    # Every block is heard once it has been trained.
    for block, modules in blocks.items():
        start = copy.deepcopy([module.state_dict() for module in modules])
        for module in modules:
            randomise(module)
        with torch.no_grad():
            assert (model(x) - expected).abs().max() > 1e-4 * expected.abs().max(), block
        for module, state in zip(modules, start, strict=True):
            module.load_state_dict(state)
    for module in [*blocks["cpsam"], *blocks["non_local"]]:
        randomise(module)
    with torch.no_grad():
        trained = model(x)
    assert trained.isfinite().all() and not torch.equal(trained, expected)

    # Copies compute the same.
    rebuilt = host.make().eval()
    config = json.loads(json.dumps(attention_config(model)))
    assert (
        insert_from_config(rebuilt, config) == list(host.places)
        and attention_config(rebuilt) == config
    )
    rebuilt.load_state_dict(model.state_dict())
    pickled = pickle.loads(pickle.dumps(model))  # noqa: S301
    for twin in (copy.deepcopy(model), pickled, rebuilt):
        assert list(twin.state_dict()) == keys and not twin.training
        with torch.no_grad():
            assert torch.equal(twin(x), trained)

    # A training step reaches all of them.
    pickled.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in attention_parameters(pickled))

    # And the host comes back.
    for twin in (model, rebuilt):
        assert remove_attention(twin) == list(host.places)
    assert snapshot(model) == before
    with torch.no_grad():
        assert torch.equal(model(x), expected) and torch.equal(rebuilt(x), expected)

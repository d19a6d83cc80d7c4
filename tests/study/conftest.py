"""Plans and reports of small networks, without what only a real study needs."""

import json
from dataclasses import asdict
from functools import cache
from typing import Any

import pytest

from cpsam.run.field import fields_of
from cpsam.study import fields
from cpsam.study.costs import Costs
from cpsam.torch_state import thread_count

COSTS: dict[str, Any] = {}
COST_OF_ARM = Costs.__getitem__


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Any:
    """Networks this small only wait for a second thread, most of all on a busy machine."""
    with thread_count(1):
        yield


@pytest.fixture(autouse=True, scope="package")
def each_network_once() -> Any:
    """Many plans hold the same arms in the same network: each is measured once."""

    def remembered(costs: Any, arm: Any) -> Any:
        loaded = costs.loaded
        shape = [*loaded.input_shape, loaded.dataset.num_classes]
        content = [asdict(loaded.task), arm.attention, dict(arm.arguments), shape]
        key = json.dumps(content, sort_keys=True, default=str)
        if key not in COSTS:
            COSTS[key] = COST_OF_ARM(costs, arm)
        return COSTS[key]

    Costs.__getitem__ = remembered
    fields.fields_of = cache(fields_of)
    yield
    Costs.__getitem__ = COST_OF_ARM
    fields.fields_of = fields_of


@pytest.fixture
def no_cached_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Costs, "__getitem__", COST_OF_ARM)

"""cpsam: does global context pay in your CNN, and which block gives it cheapest?

The public names load what they need when they are first used, so that ``import cpsam`` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpsam.attention import ATTENTION, CPSAM
    from cpsam.errors import CpsamError, DataError, DivergedError, StoppedError, UserError
    from cpsam.insert import (
        PLACEMENTS,
        attention_config,
        attention_parameters,
        insert_attention,
        insert_from_config,
        remove_attention,
    )
    from cpsam.insert.cost import cost
    from cpsam.measure import count_macs
    from cpsam.models import create_model
    from cpsam.report.results import Results, read_results
    from cpsam.testing import check_attention

__version__ = "0.1.0"

PUBLIC = {
    "ATTENTION": "cpsam.attention",
    "CPSAM": "cpsam.attention",
    "CpsamError": "cpsam.errors",
    "DataError": "cpsam.errors",
    "DivergedError": "cpsam.errors",
    "PLACEMENTS": "cpsam.insert",
    "Results": "cpsam.report.results",
    "StoppedError": "cpsam.errors",
    "UserError": "cpsam.errors",
    "attention_config": "cpsam.insert",
    "attention_parameters": "cpsam.insert",
    "check_attention": "cpsam.testing",
    "cost": "cpsam.insert.cost",
    "count_macs": "cpsam.measure",
    "create_model": "cpsam.models",
    "insert_attention": "cpsam.insert",
    "insert_from_config": "cpsam.insert",
    "read_results": "cpsam.report.results",
    "remove_attention": "cpsam.insert",
}

__all__ = [
    "ATTENTION",
    "CPSAM",
    "PLACEMENTS",
    "CpsamError",
    "DataError",
    "DivergedError",
    "Results",
    "StoppedError",
    "UserError",
    "attention_config",
    "attention_parameters",
    "check_attention",
    "cost",
    "count_macs",
    "create_model",
    "insert_attention",
    "insert_from_config",
    "read_results",
    "remove_attention",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'cpsam' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])

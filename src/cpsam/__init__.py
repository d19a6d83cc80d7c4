"""cpsam: does global context pay in your CNN, and which block gives it cheapest?

The public names load what they need when they are first used, so that ``import cpsam`` is instant.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpsam.api.compare import compare
    from cpsam.api.evaluate import evaluate
    from cpsam.api.train import train
    from cpsam.attention import ATTENTION, CPSAM
    from cpsam.config.recipe import Recipe
    from cpsam.config.run_options import RunOptions
    from cpsam.data import load_dataset
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
    from cpsam.insert.receptive_field import receptive_field
    from cpsam.measure import count_macs
    from cpsam.models import create_model
    from cpsam.report.results import Results, read_results
    from cpsam.run.load_run import load_run
    from cpsam.run.objects import Versioned
    from cpsam.testing import check_attention

__version__ = "0.1.0"

PUBLIC = {
    "ATTENTION": "cpsam.attention",
    "CPSAM": "cpsam.attention",
    "CpsamError": "cpsam.errors",
    "DataError": "cpsam.errors",
    "DivergedError": "cpsam.errors",
    "PLACEMENTS": "cpsam.insert",
    "Recipe": "cpsam.config.recipe",
    "Results": "cpsam.report.results",
    "RunOptions": "cpsam.config.run_options",
    "StoppedError": "cpsam.errors",
    "UserError": "cpsam.errors",
    "Versioned": "cpsam.run.objects",
    "attention_config": "cpsam.insert",
    "attention_parameters": "cpsam.insert",
    "check_attention": "cpsam.testing",
    "cost": "cpsam.insert.cost",
    "compare": "cpsam.api.compare",
    "count_macs": "cpsam.measure",
    "create_model": "cpsam.models",
    "evaluate": "cpsam.api.evaluate",
    "insert_attention": "cpsam.insert",
    "insert_from_config": "cpsam.insert",
    "load_dataset": "cpsam.data",
    "load_run": "cpsam.run.load_run",
    "read_results": "cpsam.report.results",
    "receptive_field": "cpsam.insert.receptive_field",
    "remove_attention": "cpsam.insert",
    "train": "cpsam.api.train",
}

__all__ = [
    "ATTENTION",
    "CPSAM",
    "PLACEMENTS",
    "CpsamError",
    "DataError",
    "DivergedError",
    "Recipe",
    "Results",
    "RunOptions",
    "StoppedError",
    "UserError",
    "Versioned",
    "attention_config",
    "attention_parameters",
    "check_attention",
    "compare",
    "cost",
    "count_macs",
    "create_model",
    "evaluate",
    "insert_attention",
    "insert_from_config",
    "load_dataset",
    "load_run",
    "read_results",
    "receptive_field",
    "remove_attention",
    "train",
]


# Two public functions have the names of a room and of a module. Python binds such a name to the
# module when it is first imported, so the module is made to call the function.
SHARED = ("evaluate", "train")


class CallableModule(ModuleType):
    """A module that calls the public function of its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module(PUBLIC[name]), name)(*arguments, **options)


class Package(ModuleType):
    """This package, which makes the modules of shared names callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SHARED and isinstance(value, ModuleType):
            value.__class__ = CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'cpsam' has no attribute {name!r}")
    if name in SHARED:
        return import_module(f"cpsam.{name}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *PUBLIC])

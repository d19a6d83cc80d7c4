"""Tells the files of one run from those of another: each carries a hash of the run's
configuration.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cpsam.errors import DataError


def run_identity(config: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a configuration as canonical JSON, without what the machine settled.

    Example:
        >>> run_identity({"seed": 1, "settled": {"threads": 2}}) == run_identity({"seed": 1})
        True
    """
    return digest({name: value for name, value in config.items() if name != "settled"})


def digest(data: object, salt: str = "") -> str:
    return hashlib.sha256((salt + json.dumps(data, sort_keys=True)).encode()).hexdigest()


def check_identity(about: Mapping[str, Any], config: Mapping[str, Any], where: str) -> bool:
    """Checks that a file is of the run of this configuration; returns False if it does not say so,
    as files of older versions.

    Raises:
        DataError: If it is of another run.
    """
    if "identity" not in about:
        return False
    if about["identity"] != run_identity(config):
        raise DataError(f"{where}: it is of another run: its identity is not that of config.json")
    return True

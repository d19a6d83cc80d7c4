"""Tells the files of one run from those of another, by a hash of the run's configuration."""

from collections.abc import Mapping
from typing import Any

from cpsam.errors import DataError
from cpsam.files import hash_json


def run_identity(config: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a configuration, without what the machine settled.

    Example:
        >>> run_identity({"seed": 1, "settled": {"threads": 2}}) == run_identity({"seed": 1})
        True
    """
    return hash_json({name: value for name, value in config.items() if name != "settled"})


def check_identity(about: Mapping[str, Any], config: Mapping[str, Any], where: str) -> bool:
    """Checks that a file belongs to the run of this configuration.

    Returns:
        Whether the file says so. Files of older versions do not.

    Raises:
        DataError: If it belongs to another run.
    """
    if "identity" not in about:
        return False
    if about["identity"] != run_identity(config):
        raise DataError(f"{where}: it is of another run: its identity is not that of config.json")
    return True

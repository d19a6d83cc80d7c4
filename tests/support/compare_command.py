"""Makes a comparison as the command does."""

from typing import Any

from cpsam.config.study import Comparison
from cpsam.study.conduct import conduct


def compare(comparison: Comparison, **options: Any) -> dict[str, Any]:
    return conduct(comparison.study(), comparison.folder, **options)

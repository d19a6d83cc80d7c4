"""Finds the weights of a folder, and reads what ``config.json`` beside them says."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from cpsam.errors import DataError, UserError
from cpsam.files import read_json
from cpsam.identity import check_identity
from cpsam.insert import attention_config
from cpsam.models.state_choice import listed

NAMES = ("weights.safetensors", "model.safetensors", "pytorch_model.bin")
"""The weights of a folder: of one of our runs, or of a model of the hub."""
CONFIG, BEST = "config.json", "best.safetensors"

Scaling = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Origin:
    """What ``config.json`` beside a file of weights says.

    Attributes:
        model: The network of a run; None for a file that is not of a run.
        scaling: Mean and standard deviation per channel of the pixels; None if it is not said.
        config: The configuration of a run; empty for a file that is not of a run.
    """

    model: str | None = None
    scaling: Scaling | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def find_file(path: Path) -> Path:
    """Returns the file of weights that a path stands for: itself, or the one in a folder.

    Raises:
        DataError: If a folder has no weights.
        UserError: If it is the folder of a run that is not finished.
    """
    if not path.is_dir():
        return path
    found = next((path / name for name in NAMES if (path / name).exists()), None)
    if found is not None:
        return found
    if (path / CONFIG).exists():
        best = (
            f"; name {path / BEST} to start from its best epoch so far"
            if (path / BEST).exists()
            else ""
        )
        raise UserError(f"the run in {path} is not finished: {NAMES[0]} is missing{best}")
    raise DataError(
        f"weights {path} is a folder without {listed(NAMES)}: name a file, or the folder of a"
        " finished run"
    )


def origin(path: Path) -> Origin:
    """Returns what is known about a file of weights from the ``config.json`` in its folder."""
    try:
        config = read_json(path.parent / CONFIG) or {}
    except (DataError, OSError):
        return Origin()  # a file of someone else, which says nothing about the weights
    published, data = config.get("pretrained_cfg"), config.get("data")
    if isinstance(data, Mapping) and isinstance(config.get("model"), str):
        return Origin(config["model"], scaling(data), config)
    return Origin(None, scaling(published) if isinstance(published, Mapping) else None)


def scaling(entry: Mapping[str, Any]) -> Scaling | None:
    """Returns the mean and the standard deviation of an entry, if it has both."""
    mean: Any = entry.get("mean")
    std: Any = entry.get("std")
    if not is_numbers(mean) or not is_numbers(std) or len(mean) != len(std) or min(std) <= 0:
        return None
    return tuple(mean), tuple(std)


def is_numbers(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def check_model(path: Path, name: str) -> None:
    """Refuses the weights of a run of another network."""
    trained = origin(find_file(path)).model
    if trained is not None and trained != name:
        raise UserError(
            f"weights {path} are those of a run of {trained}, not of {name}: ask for {trained}"
        )


def check_run(path: Path, metadata: Mapping[str, Any]) -> None:
    """Refuses weights in a run folder that another run or another tool wrote.

    They may be those of another network.

    Weights of older versions name their blocks but no run, and pass.

    Raises:
        DataError: If they are not those of the run beside them.
    """
    config = origin(path).config
    if config and path.name in (NAMES[0], BEST) and "attention" not in metadata:
        raise DataError(
            f"weights {path} are not those that the run in this folder wrote: they do not name its"
            " blocks"
        )
    if config:
        check_identity(metadata, config, f"weights {path}")


def check_blocks(path: Path, metadata: Mapping[str, Any], model: nn.Module) -> None:
    """Refuses the weights of a run whose blocks are not those of the model.

    A network whose blocks are taken out is not the one that was trained. Weights of a run without
    blocks fit any insertion.
    """
    trained = metadata.get("attention")
    if not trained:
        return
    here = json.loads(json.dumps(attention_config(model)))
    if trained != here:
        here_too = (
            f"{summary(here)}, with other arguments"
            if summary(here) == summary(trained)
            else summary(here)
        )
        raise UserError(
            f"weights {path} are those of a run with {summary(trained)}, and the model has"
            f" {here_too}: ask for the same blocks at the same places, or give weights of a network"
            " without blocks"
        )


def summary(entries: Any) -> str:
    """Returns blocks and their places in a few words.

    Example:
        >>> entries = [{"at": at, "attention": "cpsam", "arguments": {}} for at in ("1", "2")]
        >>> summary(entries)
        'cpsam at 1, 2'
    """
    if not isinstance(entries, Sequence) or not all(
        isinstance(entry, Mapping) for entry in entries
    ):
        return "blocks that cannot be read"
    names = sorted({str(entry.get("attention")) for entry in entries})
    return (
        f"{listed(names)} at {listed([str(entry.get('at')) for entry in entries])}"
        if names
        else "no blocks"
    )

"""Rebuilds the network of a finished run, with its blocks and its weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cpsam.config.task import Task
from cpsam.errors import DataError, UserError, unknown
from cpsam.files import read_json
from cpsam.identity import check_identity
from cpsam.insert import insert_from_config
from cpsam.run.arm import BARE, Arm
from cpsam.run.build import Host
from cpsam.run.events import OnEvent, as_note, silent
from cpsam.run.objects import identify, is_identity, unwrap
from cpsam.run.records import RunConfig
from cpsam.run.spec import recorded_task
from cpsam.train.run_config import CONFIG
from cpsam.train.run_folder import BEST, WEIGHTS
from cpsam.typed import checked
from cpsam.weights_file import load_weights

FILES = {"last": WEIGHTS, "best": BEST}
UNLIKELY_CLASSES = 7919  # a size that no other layer of a network has


@dataclass(frozen=True)
class FinishedRun:
    """A run that has weights, and the objects that it was made of.

    Attributes:
        folder: Of the run.
        config: What the run is.
        task: Its data and network, without what lies outside of its configuration.
        tensors: Its weights by name.
        entries: Its blocks, as :func:`cpsam.attention_config` says.
        model: What makes its network, where that has no name.
        block: What makes its blocks, where they have no name.
    """

    folder: Path
    config: RunConfig
    task: Task
    tensors: dict[str, Tensor]
    entries: list[dict[str, Any]]
    model: Callable[[], nn.Module] | None = None
    block: Callable[[int], nn.Module] | None = None

    def build(self, num_classes: int | None = None) -> nn.Module:
        """Returns the network in eval mode, with its blocks and weights.

        Args:
            num_classes: Width of the classifier; None finds it in the weights.
        """
        network = self.bare(num_classes or self.count_classes())
        if self.block is None:
            insert_from_config(network, self.entries)
        network.load_state_dict(self.tensors)
        return network.eval()

    def bare(self, num_classes: int) -> nn.Module:
        """Returns the network with the blocks that have no name, and without weights."""
        at = tuple(str(entry["at"]) for entry in self.entries)
        task = Task(model=self.config.model, at=at)
        arm = Arm("own", self.config.attention, block=self.block) if self.block else BARE
        host = Host(task, num_classes, len(self.config.data.mean), self.model)
        return host.build(arm, seed=0)

    def count_classes(self) -> int:
        """Returns the width of the classifier: the size that follows the number of classes."""
        for name, tensor in self.bare(UNLIKELY_CLASSES).state_dict().items():
            if UNLIKELY_CLASSES in tensor.shape and name in self.tensors:
                return self.tensors[name].shape[tensor.shape.index(UNLIKELY_CLASSES)]
        return UNLIKELY_CLASSES  # a network of one's own has a width of its own


def load_run(
    folder: Path | str,
    weights: str = "last",
    *,
    model: Any = None,
    block: Any = None,
) -> nn.Module:
    """Returns the network of a run in eval mode, with its blocks and weights.

    Args:
        folder: Of the run.
        weights: "last", those after the last epoch; or "best", those after the epoch with the
            highest top-1.
        model: What makes the network, for a run of a network of one's own.
        block: What makes the blocks, for a run with blocks of one's own.

    Raises:
        UserError: If there is no run, it is not finished, or `model` or `block` is not what the run
            was made of.
        DataError: If a file of the run is damaged.
    """
    return read_finished(folder, weights, model=model, block=block).build()


def read_finished(
    folder: Path | str,
    weights: str = "last",
    *,
    model: Any = None,
    block: Any = None,
    on_event: OnEvent = silent,
) -> FinishedRun:
    """Reads the configuration and the weights of a run; for arguments, see :func:`load_run`."""
    if weights not in FILES:
        raise unknown("weights", weights, FILES)
    folder = Path(folder)
    file = folder / FILES[weights]
    content = read_json(folder / CONFIG)
    if content is None:
        raise UserError(f"{folder} holds no run: {CONFIG} is missing")
    if not file.is_file():
        raise UserError(f"the run in {folder} is not finished: {file.name} is missing")
    config: RunConfig = checked(RunConfig, content, str(folder / CONFIG))
    check_object(folder, "model", model, config.model)
    check_object(folder, "block", block, config.attention)
    tensors, about = load_weights(file, as_note(on_event))
    check_identity(about, content, f"weights {file}")
    if not isinstance(about.get("attention"), list):
        raise DataError(f"weights {file}: they do not name their blocks")
    task = recorded_task(content, str(folder / CONFIG))
    entries = about["attention"]
    return FinishedRun(folder, config, task, tensors, entries, unwrap(model), unwrap(block))


def check_object(folder: Path, argument: str, given: Any, stored: str) -> None:
    """Refuses an object that the run was not made of."""
    if given is None and is_identity(stored):
        raise UserError(
            f"the run in {folder} was made of {stored}, which has no name; give it as {argument}"
        )
    if given is not None and (mine := identify(given, argument, stored)) != stored:
        raise UserError(f"the run in {folder} was made of {stored}, and {argument} is {mine}")

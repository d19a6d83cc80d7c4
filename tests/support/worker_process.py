"""What each of several processes does that train or evaluate together."""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpsam.config.run_options import RunOptions
from cpsam.data.batches import train_batches
from cpsam.errors import CpsamError, UserError
from cpsam.evaluate import evaluate
from cpsam.train import Recipe
from cpsam.train.distributed import Distributed
from cpsam.train.train import train
from support.processes import note
from support.tiny import tiny_dataset, tiny_residual


class Smooth(nn.Module):
    """Computes in float64 without BatchNorm.

    So several processes compute what one computes, except for the order of sums.
    """

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.conv = nn.Conv2d(2, 6, 3, padding=1, dtype=torch.float64)
            self.fc = nn.Linear(6, 7, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x.double()).tanh().mean((2, 3)))


NETS: dict[str, Callable[[], nn.Module]] = {"smooth": Smooth, "residual": tiny_residual}


def run(
    distributed: Distributed,
    folder: Path,
    out: Path,
    recipe: dict[str, Any],
    net: str = "residual",
    options: dict[str, Any] | None = None,
    act: Any = (),
) -> None:
    """Trains, and notes the images of each batch, the events and the error of this process.

    Args:
        distributed: The processes.
        folder: The run folder.
        out: Folder for the note.
        recipe: Fields of the recipe.
        net: Name of the network.
        options: Options of the run.
        act: The signal that some ranks send themselves, and when.
    """
    model, seen, events = NETS[net](), [], []
    act = dict(act)

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            seen.append(
                [
                    hashlib.sha256(image.numpy().tobytes()).hexdigest()[:12]
                    for image in inputs[0].contiguous()
                ]
            )
        here = ("train" if module.training else "evaluation", len(seen))
        if distributed.rank in act.get("ranks", ()) and list(here) == act["at"]:
            for _ in range(act.get("times", 1)):
                os.kill(os.getpid(), getattr(signal, act["signal"]))

    model.register_forward_pre_hook(watch)
    error = None
    try:
        train(
            model,
            tiny_dataset(train=31),
            Recipe(**recipe),
            seed=4,
            folder=folder,
            config={},
            on_event=events.append,
            device="cpu",
            options=RunOptions(**(options or {})),
            distributed=distributed,
        )
    except CpsamError as caught:
        error = caught
        raise
    finally:
        code = getattr(error, "exit_code", 0)
        shared = bool(getattr(error, "__notes__", None))
        note(
            out,
            str(distributed.rank),
            {
                "seen": seen,
                "events": len(events),
                "error": str(error or ""),
                "code": code,
                "shared": shared,
            },
        )


def measure(distributed: Distributed, out: Path, count: int) -> None:
    """Evaluates over all processes, and notes the batches of this one."""
    data = tiny_dataset(train=31, test=count)
    model, batches = Smooth(), []
    model.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    calls: list[int] = []
    result = evaluate(
        model,
        data,
        batch_size=4,
        rank=distributed.rank,
        world_size=distributed.world_size,
        all_reduce=distributed.all_reduce,
        on_batch=lambda done, of: calls.append(done),
    )
    note(out, str(distributed.rank), {"result": result, "batches": batches, "calls": calls})


def communicate(distributed: Distributed, out: Path) -> None:
    """Notes what each communication of :class:`Distributed` returns."""
    found = {
        "together": distributed.run_on_main(lambda: {"from": distributed.rank}),
        "share": distributed.broadcast_bytes(b"\x00bytes" if distributed.is_main else None).hex(),
        "total": distributed.all_reduce(torch.tensor([1.0, distributed.rank])).tolist(),
    }
    tensor = torch.full((2, 3), float(distributed.rank))
    distributed.broadcast_tensors([tensor])
    found["copied"] = tensor.unique().tolist()
    order = []
    distributed.main_first(
        lambda: (
            order.append(len(list(out.iterdir())) if out.exists() else 0)
            or note(out, f"was-{distributed.rank}", 1)
        )
    )
    found["before"] = order

    def refuse() -> None:
        raise UserError(f"no, says {distributed.rank}")

    try:
        distributed.run_on_main(refuse)
    except UserError as error:
        found["error"] = [str(error), bool(getattr(error, "__notes__", None))]
    note(out, str(distributed.rank), found)


def single_process_order(recipe: dict[str, Any]) -> list[list[str]]:
    """Returns the images of every batch as one process gets them."""
    fields = Recipe(**recipe)
    return [
        [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:12] for image in x.contiguous()]
        for epoch in range(fields.epochs)
        for x, _ in train_batches(
            tiny_dataset(train=31), batch_size=fields.batch_size, seed=4, epoch=epoch
        )
    ]

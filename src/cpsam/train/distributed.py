"""The processes that train one model together.

Each process computes on its part of every batch. Everything else than gradients that they exchange
goes through :class:`Distributed`: sums of numbers, and what the main process found or decided. The
main process alone writes to the run folder.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cpsam.errors import CpsamError, DataError, DivergedError, StoppedError, UserError
from cpsam.train.compute import find_device

T = TypeVar("T")
E = TypeVar("E", bound=CpsamError)
ERRORS = {kind.__name__: kind for kind in (UserError, DataError, DivergedError, StoppedError)}
SHARED_ERROR = "process 0 reports the same error"
# torch 2.14 renamed this option.
SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in signature(DistributedDataParallel).parameters
)


@dataclass(frozen=True)
class Distributed:
    """This process among the processes of a run.

    By default it is the only one, and nothing is communicated.

    Args:
        rank: Which process this is, from 0. Process 0 is the main process.
        world_size: How many processes there are.
        local_rank: Which of the processes on its machine this is.
        launched: Whether a launcher started it, even as the only one.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    launched: bool = False

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def local_device(self, device: torch.device | str | None = None) -> torch.device:
        """Returns the device that is meant. Each process takes a GPU of its own on its machine."""
        found = find_device(device)
        if found.type == "cuda" and self.world_size > 1 and found.index is None:
            return torch.device("cuda", self.local_rank)
        return found

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sums a tensor over all processes, in place, and returns it."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites tensors by those of the main process."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def broadcast_bytes(self, data: bytes | None) -> bytes:
        """Returns the bytes that the main process gives, whatever the others give."""
        data = (data or b"") if self.is_main else b""
        if self.world_size == 1:
            return data
        nccl = dist.get_backend() == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
        length = torch.tensor([len(data)], device=device)
        dist.broadcast(length, 0)
        buffer = torch.empty(int(length), dtype=torch.uint8, device=device)
        if data:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(buffer, 0)
        return buffer.cpu().numpy().tobytes()

    def run_on_main(self, work: Callable[[], T]) -> T:
        """Calls `work` in the main process alone, and returns its result in every process.

        The result is plain data. An error of cpsam is raised in every process too.
        """
        if self.world_size == 1:
            return work()
        answer: dict[str, Any] = {}
        if self.is_main:
            try:
                answer = {"result": work()}
            except CpsamError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
        answer = json.loads(self.broadcast_bytes(json.dumps(answer).encode()))
        if "error" in answer:
            raise self.mark_as_shared(ERRORS[answer["error"]](answer["message"]))
        return answer["result"]

    def main_first(self, work: Callable[[], T]) -> T:
        """Calls `work` in the main process, then in the others.

        The others find what the main process left on the disk.
        """
        done: list[T] = []
        self.run_on_main(lambda: done.append(work()))
        return done[0] if done else work()

    def mark_as_shared(self, error: E) -> E:
        """Marks an error that every process raises, so that only the main process prints it."""
        if not self.is_main:
            error.add_note(SHARED_ERROR)
        return error

    def data_parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Returns a module whose backward pass averages the gradients of `model` over processes.

        Buffers are not synchronised at each step, because training does not read them. See
        :meth:`broadcast_tensors`.
        """
        trained = any(parameter.requires_grad for parameter in model.parameters())
        if self.world_size == 1 or not trained:
            return model
        options: dict[str, Any] = {SYNC_BUFFERS: False, "gradient_as_bucket_view": True}
        if device.type == "cuda":
            options["device_ids"] = [device]
        return DistributedDataParallel(model, **options)


def is_lost_peer(error: BaseException) -> bool:
    """Returns whether a process gets this error when another process of its run has ended."""
    return isinstance(error, dist.DistBackendError) or (
        isinstance(error, RuntimeError) and bool(re.search("gloo|Connection", str(error)))
    )

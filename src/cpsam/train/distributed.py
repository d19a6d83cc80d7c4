"""Several processes that train one model, started by `torchrun` or `srun`.

Each computes on its part of every batch. What they tell each other besides gradients goes through
:class:`Distributed`: sums of numbers, and what process 0 has found or decided. Process 0 alone
touches the run folder.
"""

import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cpsam.errors import CpsamError, DataError, DivergedError, StoppedError, UserError
from cpsam.train.compute import find_device
from cpsam.train.rendezvous import OnWait, rendezvous

T = TypeVar("T")
E = TypeVar("E", bound=CpsamError)
ERRORS = {kind.__name__: kind for kind in (UserError, DataError, DivergedError, StoppedError)}
# What torch calls it from 2.14 on, and what it was called before.
SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in signature(DistributedDataParallel).parameters
)
SHARED_ERROR = "process 0 reports the same error"
MOST_PROCESSES = 100_000
FIRST_PORT, PORTS = 15_000, 15_000  # below those that systems hand out to clients


@dataclass(frozen=True)
class Distributed:
    """This process and the others of a run. By default there are no others, and nothing is
    communicated.

    Args:
        rank: Which process this is, from 0. Process 0 is the main one.
        world_size: How many there are.
        local_rank: Which of those on its machine.
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
        """The device that is meant; of the GPUs of a machine each process takes its own."""
        found = find_device(device)
        return (
            torch.device("cuda", self.local_rank)
            if found.type == "cuda" and self.world_size > 1 and found.index is None
            else found
        )

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of process 0."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def broadcast_bytes(self, data: bytes | None) -> bytes:
        """The bytes that process 0 gives, whatever the others give."""
        data = (data or b"") if self.is_main else b""
        if self.world_size == 1:
            return data
        device = (
            torch.device("cuda", torch.cuda.current_device())
            if dist.get_backend() == "nccl"
            else torch.device("cpu")
        )
        length = torch.tensor([len(data)], device=device)
        dist.broadcast(length, 0)
        buffer = torch.empty(int(length), dtype=torch.uint8, device=device)
        if data:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(buffer, 0)
        return buffer.cpu().numpy().tobytes()

    def run_on_main(self, work: Callable[[], T]) -> T:
        """Work that process 0 alone does: its result, plain data, is everyone's, and so is its
        error.
        """
        if self.world_size == 1:
            return work()
        answer: dict[str, Any] = {}
        if self.is_main:
            try:
                answer = {"result": work()}
            except CpsamError as error:
                answer = {"error": type(error).__name__, "says": str(error)}
        answer = json.loads(self.broadcast_bytes(json.dumps(answer).encode()))
        if "error" in answer:
            raise self.mark_as_shared(ERRORS[answer["error"]](answer["says"]))
        return answer["result"]

    def main_first(self, work: Callable[[], T]) -> T:
        """Work that each process does, process 0 before the others, who then find what it left on
        the disk.
        """
        done: list[T] = []
        self.run_on_main(lambda: done.append(work()))
        return done[0] if done else work()

    def mark_as_shared(self, error: E) -> E:
        """Mark an error that every process raises, so that process 0 alone has to print it."""
        if not self.is_main:
            error.add_note(SHARED_ERROR)
        return error

    def data_parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """A module whose backward pass leaves the mean over all processes in the gradients of
        `model`.

        Buffers are not kept alike at every step, as nothing in training reads them; see
        :meth:`broadcast_tensors`.
        """
        if self.world_size == 1 or not any(
            parameter.requires_grad for parameter in model.parameters()
        ):
            return model
        options: dict[str, Any] = {
            "device_ids": [device] if device.type == "cuda" else None,
            "gradient_as_bucket_view": True,
        }
        options[SYNC_BUFFERS] = False
        return DistributedDataParallel(model, **options)


@contextmanager
def process_group(
    environment: Mapping[str, str] = os.environ, on_wait: OnWait = lambda words: None
) -> Iterator[Distributed]:
    """Joins the processes that a launcher started; without a launcher, this process is alone.

    The processes talk over NCCL if there are GPUs, else over Gloo.

    Args:
        environment: Where the launcher's variables are.
        on_wait: Called with what is waited for, while the others have not come.

    Raises:
        UserError: If the launcher's variables do not fit together, there are fewer GPUs than
            processes on this machine, or the others do not come.
    """
    distributed, address, port = read_launcher(environment)
    if distributed.world_size == 1:
        yield distributed
        return
    cuda = torch.cuda.is_available()
    if cuda and distributed.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {distributed.local_rank} of this machine has no GPU: torch sees"
            f" {torch.cuda.device_count()}; start fewer"
        )
    if cuda:
        torch.cuda.set_device(distributed.local_rank)
    store = rendezvous(distributed.rank, distributed.world_size, address, port, on_wait)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=store,
        rank=distributed.rank,
        world_size=distributed.world_size,
    )
    try:
        yield distributed
    finally:
        dist.destroy_process_group()


def read_launcher(environment: Mapping[str, str]) -> tuple[Distributed, str, int]:
    """What the variables of `torchrun` or `srun` say: who this is, and where process 0 listens.

    Example:
        >>> job = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
        >>> read_launcher({**job, "MASTER_ADDR": "a", "MASTER_PORT": "29500"})
        (Distributed(rank=3, world_size=8, local_rank=1, launched=True), 'a', 29500)
    """
    if "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_PROCID" in environment:
        names = (
            "SLURM_PROCID",
            "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS",
            "SLURM_LOCALID",
        )
    elif environment.get("WORLD_SIZE", "1") in ("", "1"):
        return Distributed(), "", 0
    else:
        raise UserError(
            f"WORLD_SIZE is {environment['WORLD_SIZE'][:20]!r} and RANK is not set: start with"
            " torchrun or srun, or unset WORLD_SIZE"
        )
    if missing := [name for name in names if name not in environment]:
        if names[0] == "SLURM_PROCID" and environment["SLURM_PROCID"] == "0":
            return (
                Distributed(),
                "",
                0,
            )  # a batch script, which SLURM calls process 0 of an unknown number
        raise UserError(
            f"{names[0]} is set and {missing[0]} is not: start with torchrun or srun, or unset"
            f" {names[0]}"
        )
    given = [environment[name] for name in names]
    if not all(re.fullmatch(r"[0-9]{1,9}", value) for value in given):
        raise UserError(
            f"{', '.join(names)} must be whole numbers; got"
            f" {', '.join(value[:20] for value in given)}"
        )
    rank, world_size, local_rank = map(int, given)
    if not 1 <= world_size <= MOST_PROCESSES:
        raise UserError(f"{names[1]} must be from 1 to {MOST_PROCESSES:,}; got {world_size}")
    for name, value in ((names[0], rank), (names[2], local_rank)):
        if value >= world_size:
            raise UserError(
                f"{name} must be from 0 to below {names[1]}; got {value} of {world_size}"
            )
    nodes = (
        environment.get("SLURM_STEP_NODELIST")
        or environment.get("SLURM_JOB_NODELIST")
        or environment.get("SLURM_NODELIST", "")
    )
    job = f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}"
    address = environment.get("MASTER_ADDR") or first_host(nodes) or "127.0.0.1"
    if not re.fullmatch(r"[\w.:%-]{1,253}", address):
        raise UserError(
            f"MASTER_ADDR must be the name or the address of a machine; got {address[:60]!r}"
        )
    port = environment.get("MASTER_PORT") or str(FIRST_PORT + zlib.crc32(job.encode()) % PORTS)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise UserError(f"MASTER_PORT must be a whole number from 1 to 65,535; got {port[:20]!r}")
    return Distributed(rank, world_size, local_rank, launched=True), address, int(port)


def first_host(nodes: str) -> str:
    """The first name in a list of SLURM's.

    Example:
        >>> first_host("gpu[003-007,9]-ib,login"), first_host("alone")
        ('gpu003-ib', 'alone')
    """
    found = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\]([^,\[]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else ""


def is_lost_peer(error: BaseException) -> bool:
    """Whether this is what a process sees when another process of its group has ended."""
    return isinstance(error, dist.DistBackendError) or (
        isinstance(error, RuntimeError) and bool(re.search("gloo|Connection", str(error)))
    )

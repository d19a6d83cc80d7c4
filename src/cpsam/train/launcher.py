"""Joins the processes that `torchrun` or `srun` started."""

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist

from cpsam.errors import UserError
from cpsam.train.distributed import Distributed
from cpsam.train.rendezvous import OnWait, rendezvous

MOST_PROCESSES = 100_000
FIRST_PORT, PORTS = 15_000, 15_000  # Below the ports that systems give to clients.


@contextmanager
def process_group(
    environment: Mapping[str, str] = os.environ, on_wait: OnWait = lambda words: None
) -> Iterator[Distributed]:
    """Joins the processes that a launcher started. Without a launcher, this process is alone.

    The processes communicate over NCCL if there are GPUs, else over Gloo.

    Args:
        environment: The variables of the launcher.
        on_wait: Called with what this process waits for, while the others have not come.

    Raises:
        UserError: If the launcher's variables do not fit together, there are fewer GPUs than
            processes on this machine, or the others do not come.
    """
    distributed, address, port = read_launcher(environment)
    rank, world_size, local_rank = (
        distributed.rank,
        distributed.world_size,
        distributed.local_rank,
    )
    if world_size == 1:
        yield distributed
        return
    cuda = torch.cuda.is_available()
    if cuda and local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank} of this machine has no GPU: torch sees"
            f" {torch.cuda.device_count()}; start fewer"
        )
    if cuda:
        torch.cuda.set_device(local_rank)
    store = rendezvous(rank, world_size, address, port, on_wait)
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    try:
        yield distributed
    finally:
        dist.destroy_process_group()


def read_launcher(environment: Mapping[str, str]) -> tuple[Distributed, str, int]:
    """Returns which process this is, and the address and the port of the main process.

    The variables of the launcher say so.

    Raises:
        UserError: If a variable is missing or cannot be right.

    Example:
        >>> job = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
        >>> read_launcher({**job, "MASTER_ADDR": "a", "MASTER_PORT": "29500"})
        (Distributed(rank=3, world_size=8, local_rank=1, launched=True), 'a', 29500)
    """
    names = launcher_variables(environment)
    if names is None:
        return Distributed(), "", 0
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
    address, port = main_address(environment)
    return Distributed(rank, world_size, local_rank, launched=True), address, port


def launcher_variables(environment: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Returns the names of the variables that hold rank, world size and local rank.

    It is None if no launcher set any.
    """
    if "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_PROCID" in environment:
        step = "SLURM_STEP_NUM_TASKS" in environment
        size = "SLURM_STEP_NUM_TASKS" if step else "SLURM_NTASKS"
        names = ("SLURM_PROCID", size, "SLURM_LOCALID")
    elif environment.get("WORLD_SIZE", "1") in ("", "1"):
        return None
    else:
        raise UserError(
            f"WORLD_SIZE is {environment['WORLD_SIZE'][:20]!r} and RANK is not set: start with"
            " torchrun or srun, or unset WORLD_SIZE"
        )
    if missing := [name for name in names if name not in environment]:
        # SLURM calls a batch script process 0 and does not say of how many.
        if names[0] == "SLURM_PROCID" and environment["SLURM_PROCID"] == "0":
            return None
        raise UserError(
            f"{names[0]} is set and {missing[0]} is not: start with torchrun or srun, or unset"
            f" {names[0]}"
        )
    return names


def main_address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Returns the address and the port of the main process.

    Without MASTER_ADDR and MASTER_PORT they follow from the SLURM job.
    """
    nodes = (
        environment.get("SLURM_STEP_NODELIST")
        or environment.get("SLURM_JOB_NODELIST")
        or environment.get("SLURM_NODELIST", "")
    )
    address = environment.get("MASTER_ADDR") or first_host(nodes) or "127.0.0.1"
    if not re.fullmatch(r"[\w.:%-]{1,253}", address):
        raise UserError(
            f"MASTER_ADDR must be the name or the address of a machine; got {address[:60]!r}"
        )
    job = f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}"
    port = environment.get("MASTER_PORT") or str(FIRST_PORT + zlib.crc32(job.encode()) % PORTS)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise UserError(f"MASTER_PORT must be a whole number from 1 to 65,535; got {port[:20]!r}")
    return address, int(port)


def first_host(nodes: str) -> str:
    """Returns the first name in a list of SLURM nodes.

    Example:
        >>> first_host("gpu[003-007,9]-ib,login"), first_host("alone")
        ('gpu003-ib', 'alone')
    """
    found = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\]([^,\[]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else ""

"""Runs functions in processes of their own, for tests that kill them.

A server that has imported everything forks them, which takes milliseconds.
"""

import json
import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

context = multiprocessing.get_context("forkserver")


def start(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Starts a process that calls a function on one thread, and returns the process."""
    preload()
    process = context.Process(target=guarded, args=(function, arguments, options), daemon=True)
    process.start()
    return process


def preload() -> None:
    """Says what the server imports when it starts."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # The server reads it when it starts.
    context.set_forkserver_preload(
        ["support.processes", "cpsam.study.run_process", "torchvision", "support.tiny"]
    )


def guarded(
    function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    import torch

    # The server ignores SIGINT, and this process is forked from it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    try:
        function(*arguments, **options)
    except BaseException as error:
        if (code := getattr(error, "exit_code", None)) is None:
            traceback.print_exc()
        os._exit(code or 1)
    os._exit(0)


def end(process: Any, seconds: float = 60.0) -> int:
    """Waits for a process and returns its exit code.

    A process that hangs is killed, and that is an error.
    """
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"process {process.pid} did not end in {seconds} s")
    return process.exitcode


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(size: int, function: Callable[..., Any], *arguments: Any, **variables: str) -> list[Any]:
    """Starts processes that find each other by the variables of torchrun or SLURM."""
    port = str(free_port())
    return [
        start(member, rank, size, port, variables, function, *arguments) for rank in range(size)
    ]


def member(
    rank: int,
    size: int,
    port: str,
    variables: dict[str, str],
    function: Callable[..., Any],
    *arguments: Any,
) -> None:
    if "SLURM_JOB_ID" in variables:
        names = {"SLURM_PROCID": rank, "SLURM_NTASKS": size, "SLURM_LOCALID": rank}
    else:
        names = {
            "RANK": rank,
            "WORLD_SIZE": size,
            "LOCAL_RANK": rank,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
    os.environ.update({name: str(value) for name, value in names.items()} | variables)
    from cpsam.train.launcher import process_group

    with process_group() as found:
        function(found, *arguments)


def note(folder: Path, name: str, value: Any) -> None:
    """Writes plain data for the test to read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(value))


def family(pid: int) -> list[int]:
    """Returns a process and all its descendants, parents first.

    Those that `torchrun` starts are in no process group of its own.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found

"""Makes batches in processes of their own, because transforms draw from global generators.

Why not torch's DataLoader: tried with torch 2.14, forkserver and blocked signals, and not kept.

- Its processes stay for ever when the training is killed. They watch their parent, which is the
  fork server, and the fork server waits for them:
  `test_no_process_outlives_a_training_that_is_killed` fails.
- A killed process is an exception inside a signal handler, wherever the training is just then.
  With tensors in shared memory it is a ConnectionResetError:
  `test_a_killed_process_ends_the_epoch_with_an_error` fails.
- A batch of 128 images of 224x224 costs 50 ms through shared memory and 100 ms through a pipe. Here
  it costs 3 to 7 ms. The shared memory is `/dev/shm`, which is small in containers.

Here each process has a connection of its own. The process ends when the other end is closed. It
writes bytes into nameless memory that it shares with the training. It knows only the batch that it
makes, so the same processes serve training and evaluation in every epoch.
"""

import atexit
import mmap
import os
import signal
import tempfile
import traceback
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_all_start_methods, get_context, reduction, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from cpsam.data.loader.batch_request import BatchRequest
from cpsam.data.split import Pixels
from cpsam.errors import STOP_SIGNALS, CpsamError, DataError

DEPTH = 2  # batches that a process makes ahead of the one that trains
SECONDS_TO_END = 5
LOADER = "cpsam-loader"
# They go to all processes of a job; the one that trains decides when to stop.
SIGNALS = STOP_SIGNALS


class Worker:
    """Talks to one loading process."""

    def __init__(self) -> None:
        # A process forked from this one would inherit the locks of its threads, and a GPU that it
        # cannot use.
        method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
        context: Any = get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(
                ["cpsam.data.loader.fork_server", "cpsam.data.loader.batch_request", "timm.data"]
            )  # the fork server imports these once for all processes
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True, name=LOADER)
        try:
            with signals_blocked():
                self.process.start()
        except (EOFError, OSError) as error:
            raise DataError(
                f"a process that loads images could not be started ({error})"
            ) from error
        theirs.close()
        self.file = nameless_file()
        self.memory: mmap.mmap | None = None
        self.room = 0  # bytes for one batch
        self.pending = 0  # answers still to come
        self.has_ended = False
        try:
            reduction.send_handle(self.connection, self.file, self.process.pid)
        except OSError as error:
            raise self.end_error() from error

    def grow(self, room: int) -> None:
        if room > self.room:
            os.ftruncate(self.file, DEPTH * room)
            self.room, self.memory = room, mmap.mmap(self.file, DEPTH * room)

    def send(self, request: BatchRequest, slot: int) -> None:
        try:
            self.connection.send((slot, self.room, request))
        except OSError as error:
            raise self.end_error() from error
        self.pending += 1

    def receive(self) -> Exception | None:
        """Waits for an answer: None, or what went wrong."""
        try:
            # Nobody else holds the other end, so it closes when the process ends.
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self.end_error() from error
        self.pending -= 1
        return answer

    def batch(self, shape: tuple[int, ...], slot: int) -> Pixels:
        assert self.memory is not None
        return np.ndarray(shape, np.uint8, self.memory, slot * self.room)

    def end_error(self) -> DataError:
        """Returns the error that says how the process ended."""
        self.has_ended = True
        self.process.join(SECONDS_TO_END)
        code = self.process.exitcode
        if code is not None and code < 0:
            how = (
                f"was killed by {signal.Signals(-code).name}, perhaps for want of memory; fewer"
                " `workers` need less"
            )
        else:
            how = f"ended with exit code {code}"
        return DataError(f"a process that loads images {how}")

    def close(self) -> None:
        """Closes the connection; then the process ends by itself."""
        self.connection.close()
        os.close(self.file)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks the signals of a job in processes that are started in here, the fork server included.

    This process receives them afterwards.
    """
    # If multiprocessing started the tracker later, it would unblock the signals.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def nameless_file() -> int:
    """Returns a descriptor of a file that ends with the last process that holds it.

    The file is in memory if the system has such files.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cpsam")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class WorkerPool:
    """Makes batches by processes that take turns."""

    def __init__(self, count: int) -> None:
        self.workers = [Worker() for _ in range(count)]
        POOLS.add(self)

    def make(self, requests: Iterable[BatchRequest], room: int) -> Iterator[Pixels]:
        """Yields the batch of each request, in order, each valid until the next is asked for.

        Args:
            requests: Read as far ahead as batches are made.
            room: Bytes of the largest batch.

        Raises:
            DataError: If an image is bad, or a process has ended.
        """
        count = len(self.workers)
        for worker in self.workers:
            while worker.pending:  # of an epoch that was left before its end
                worker.receive()
            worker.grow(room)
        numbered, due = enumerate(requests), deque()

        def send_next() -> None:
            for index, request in islice(numbered, 1):
                worker, slot = self.workers[index % count], index // count % DEPTH
                worker.send(request, slot)
                due.append((worker, slot, request.shape))

        for _ in range(DEPTH * count):
            send_next()
        while due:
            worker, slot, shape = due.popleft()
            if (problem := worker.receive()) is not None:
                raise problem
            yield worker.batch(shape, slot)
            send_next()  # into the slot that is free now

    def close(self) -> None:
        POOLS.discard(self)
        for worker in self.workers:
            worker.close()


POOLS: "weakref.WeakSet[WorkerPool]" = weakref.WeakSet()
IDLE_POOLS: dict[int, list[WorkerPool]] = {}


@atexit.register
def close_all() -> None:
    # The handler of multiprocessing comes after this one, and waits for the processes to end.
    for pool in list(POOLS):
        pool.close()


@contextmanager
def borrow_pool(count: int) -> Iterator[WorkerPool]:
    """Lends a pool of `count` processes for one epoch.

    An idle pool is used first, because it takes seconds to start a process.
    """
    idle = IDLE_POOLS.setdefault(count, [])
    pool = idle.pop() if idle else WorkerPool(count)
    try:
        yield pool
    finally:
        if any(worker.has_ended for worker in pool.workers):
            pool.close()
        else:
            idle.append(pool)


def serve(connection: Connection) -> None:
    """Makes batches until the other end is closed; this is all that a loading process does."""
    for number in SIGNALS:  # They are not blocked if somebody else started the fork server.
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    memory, length = None, 0
    try:
        file = reduction.recv_handle(connection)
        while True:
            slot, room, request = connection.recv()
            if DEPTH * room != length:
                length = DEPTH * room
                memory = mmap.mmap(file, length)
            try:
                request.make(np.ndarray(request.shape, np.uint8, memory, slot * room))
                connection.send(None)
            except CpsamError as error:
                connection.send(error)
            except Exception:
                connection.send(
                    RuntimeError(f"a process that loads images failed:\n{traceback.format_exc()}")
                )
    except (EOFError, OSError):
        return

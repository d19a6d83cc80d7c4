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

DEPTH = 2  # batches that a process may be ahead of the one that trains
SECONDS_TO_END = 5
LOADER = "cpsam-loader"
SIGNALS = STOP_SIGNALS  # to all processes of a job: the one that trains decides


class Worker:
    """One process, and what the other side has to know of it."""

    def __init__(self) -> None:
        # A process forked from this one would inherit the locks of its threads, and a GPU that it
        # cannot use.
        method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
        context: Any = get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(
                ["cpsam.data.loader.fork_server", "cpsam.data.loader.batch_request", "timm.data"]
            )  # imported once for all processes
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True, name=LOADER)
        try:
            with unheard():
                self.process.start()
        except (EOFError, OSError) as error:
            raise DataError(
                f"a process that loads images could not be started ({error})"
            ) from error
        theirs.close()
        self.file = nameless_file()
        self.memory: mmap.mmap | None = None
        self.room = 0  # bytes for one batch
        self.owed = 0  # answers still to come
        self.gone = False
        try:
            reduction.send_handle(self.connection, self.file, self.process.pid)
        except OSError as error:
            raise self.ended() from error

    def grow(self, room: int) -> None:
        if room > self.room:
            os.ftruncate(self.file, DEPTH * room)
            self.room, self.memory = room, mmap.mmap(self.file, DEPTH * room)

    def ask(self, job: BatchRequest, slot: int) -> None:
        try:
            self.connection.send((slot, self.room, job))
        except OSError as error:
            raise self.ended() from error
        self.owed += 1

    def answer(self) -> Exception | None:
        """Wait for an answer: None, or what went wrong with the job."""
        try:
            # nobody else holds the other end, so it ends when the process does
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self.ended() from error
        self.owed -= 1
        return answer

    def batch(self, shape: tuple[int, ...], slot: int) -> Pixels:
        assert self.memory is not None
        return np.ndarray(shape, np.uint8, self.memory, slot * self.room)

    def ended(self) -> DataError:
        self.gone = True
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
        """The process ends by itself when nobody is at the other end."""
        self.connection.close()
        os.close(self.file)


@contextmanager
def unheard() -> Iterator[None]:
    """What is started in here, the server that forks included, never hears the signals of a job;
    this process hears them afterwards.
    """
    # multiprocessing starts it if need be, and then listens to signals again
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def nameless_file() -> int:
    """A descriptor of a file in memory, where the system has such, that ends with the last process
    that holds it.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cpsam")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Workers:
    """Processes that take batches in turn."""

    def __init__(self, count: int) -> None:
        self.workers = [Worker() for _ in range(count)]
        EVERY.add(self)

    def make(self, jobs: Iterable[BatchRequest], room: int) -> Iterator[Pixels]:
        """The batch of each job, in order, each good until the next is asked for.

        Args:
            jobs: Taken as far ahead as batches are made.
            room: Bytes of the largest batch.

        Raises:
            DataError: If a job finds bad data, or a process has ended.
        """
        count = len(self.workers)
        for worker in self.workers:
            while worker.owed:  # to an epoch that was left before its end
                worker.answer()
            worker.grow(room)
        numbered, due = enumerate(jobs), deque()

        def ask() -> None:
            for index, job in islice(numbered, 1):
                worker, slot = self.workers[index % count], index // count % DEPTH
                worker.ask(job, slot)
                due.append((worker, slot, job.shape))

        for _ in range(DEPTH * count):
            ask()
        while due:
            worker, slot, shape = due.popleft()
            if (problem := worker.answer()) is not None:
                raise problem
            yield worker.batch(shape, slot)
            ask()  # for the slot that has become free

    def close(self) -> None:
        EVERY.discard(self)
        for worker in self.workers:
            worker.close()


EVERY: "weakref.WeakSet[Workers]" = weakref.WeakSet()
IDLE: dict[int, list[Workers]] = {}


@atexit.register
def close_all() -> None:
    # multiprocessing, whose own handler comes after this one, waits for the processes to end.
    for pool in list(EVERY):
        pool.close()


@contextmanager
def workers(count: int) -> Iterator[Workers]:
    """So many processes, for one epoch: idle ones if there are, for it takes seconds to
    start one.
    """
    idle = IDLE.setdefault(count, [])
    pool = idle.pop() if idle else Workers(count)
    try:
        yield pool
    finally:
        if any(worker.gone for worker in pool.workers):
            pool.close()
        else:
            idle.append(pool)


def serve(requests: Connection) -> None:
    """What a process does: make batches until nobody asks for more."""
    for number in SIGNALS:  # for where the server that forks was started by somebody else
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    memory, length = None, 0
    try:
        file = reduction.recv_handle(requests)
        while True:
            slot, room, job = requests.recv()
            if DEPTH * room != length:
                length = DEPTH * room
                memory = mmap.mmap(file, length)
            try:
                job.make(np.ndarray(job.shape, np.uint8, memory, slot * room))
                requests.send(None)
            except CpsamError as error:
                requests.send(error)
            except Exception:
                requests.send(
                    RuntimeError(f"a process that loads images failed:\n{traceback.format_exc()}")
                )
    except (EOFError, OSError):
        return

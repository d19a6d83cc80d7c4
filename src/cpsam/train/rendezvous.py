"""Brings the processes of a run together, and reports what each waits for.

A signal ends every wait at once.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, DistNetworkError, PrefixStore, Store, TCPStore

from cpsam.errors import StoppedError, UserError

FIRST_REPORT_SECONDS, NEXT_REPORT_SECONDS, GIVE_UP_SECONDS = 5.0, 60.0, 1800.0
POLL_SECONDS = 0.05

OnWait = Callable[[str], None]


class WaitReporter:
    """Reports what is waited for, and gives up after half an hour.

    It reports first after five seconds, then every minute.
    """

    def __init__(self, on_wait: OnWait) -> None:
        self.on_wait, self.started = on_wait, time.monotonic()
        self.next_report = self.started + FIRST_REPORT_SECONDS

    def wait(self, what: str) -> None:
        """Sleeps for a moment.

        Raises:
            UserError: If the wait has been too long.
        """
        now = time.monotonic()
        if now - self.started > GIVE_UP_SECONDS:
            raise UserError(f"gave up {what} after {GIVE_UP_SECONDS / 60:.0f} minutes")
        if now >= self.next_report:
            self.on_wait(what)
            self.next_report = now + NEXT_REPORT_SECONDS
        time.sleep(POLL_SECONDS)


def rendezvous(rank: int, world_size: int, address: str, port: int, on_wait: OnWait) -> Store:
    """Returns the store in which all processes of a run have met.

    Args:
        rank: Which process this is. Process 0 listens, unless the launcher does.
        world_size: How many processes there are.
        address: Where process 0 listens.
        port: Its port.
        on_wait: Called with what is waited for.

    Raises:
        UserError: If the address is unknown, the port is in use, or a process does not come.
        StoppedError: If process 0 ends meanwhile.
    """
    reporter, peer = WaitReporter(on_wait), f"{address}:{port}"
    launcher_listens = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun does
    listens = rank == 0 and not launcher_listens

    def connect() -> Store:
        socket.getaddrinfo(address, port)
        timeout = timedelta(seconds=GIVE_UP_SECONDS)
        return TCPStore(address, port, world_size, listens, timeout=timeout, wait_for_workers=False)

    try:
        what = f"waiting for {'its own port' if listens else 'process 0 at'} {peer}"
        tcp = in_background(connect, lambda: reporter.wait(what))
        store = PrefixStore(f"cpsam/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", tcp)
        store.add("here", 1)
        while (here := store.add("here", 0)) < world_size:
            reporter.wait(f"waiting for {world_size - here} of {world_size} processes at {peer}")
        return store
    except (socket.gaierror, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no machine can have this name"
        raise UserError(
            f"MASTER_ADDR: the address {address[:60]!r} is not known ({why})"
        ) from error
    except (DistError, RuntimeError) as error:
        in_use = isinstance(error, DistNetworkError) and "EADDRINUSE" in str(error)
        if listens and in_use:
            raise UserError(
                f"MASTER_PORT: port {port} of this machine is in use; choose another one"
            ) from error
        raise StoppedError(
            f"the processes of this run did not meet at {peer}; the same command continues"
        ) from error


def in_background(work: Callable[[], Any], wait: Callable[[], None]) -> Any:
    """Calls `work` in a thread, and returns its result.

    A signal is noticed meanwhile, and abandons the thread.
    """
    done: list[Any] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            done.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(POLL_SECONDS)
    while thread.is_alive():
        wait()
    if errors:
        raise errors[0]
    return done[0]

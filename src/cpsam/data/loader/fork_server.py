"""Imported by nobody but the server that forks the loading processes, which is born with the
signals of a job blocked, as are its children.

Where a program uses Python's fork server for processes of its own too, they come from the same
server: these hear signals as ever.
"""

import signal
from multiprocessing import current_process, util

from cpsam.data.loader.workers import LOADER, SIGNALS


def hear() -> None:
    """What a process does when it has been forked, and knows its name."""
    if current_process().name != LOADER:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


util.register_after_fork(hear, lambda call: call())

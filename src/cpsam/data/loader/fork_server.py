"""Unblocks signals in processes that the fork server starts for others than the loader.

Only the server that forks the loading processes imports this file. The server starts with the
signals of a job blocked, and so do its children. If a program uses Python's fork server for
processes of its own, they come from the same server and must receive signals as usual.
"""

import signal
from multiprocessing import current_process, util

from cpsam.data.loader.workers import LOADER, SIGNALS


def unblock_signals() -> None:
    """Unblocks the signals in a forked process that does not load images."""
    if current_process().name != LOADER:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


util.register_after_fork(unblock_signals, lambda call: call())

"""Processes that must not outlive the one that started them."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec nothing may be imported or allocated more than need be.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

__all__ = ["die_with_parent"]


def die_with_parent(parent: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Called in a child: the kernel sends it `how` when `parent` dies, killed or not (Linux; elsewhere nothing).

    The signal comes when the *thread* that forked ends, so long-lived children are started from the main thread.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

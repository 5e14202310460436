"""The C library's heap: one for all threads, which keeps what was freed where it would give it back to the system."""

import contextlib
import ctypes

KEPT_BY_A_JOB, KEPT_IN_TRAINING = 128 << 20, 1 << 30
"""Bytes: what a job may hold for its next forward counts as its memory; training and evaluation
have the machine to themselves."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""
_MAPPED_BYTES = 32 << 20
"""What is as large gets pages of its own, which go back when it is freed: the most that glibc lets one ask for."""


def set_up_heap(kept_bytes: int) -> None:
    """Keep up to `kept_bytes` that were freed, in one heap for all threads that start from now on.

    Elsewhere than on glibc nothing happens.

    What one thread frees another then uses. With heaps of their own, readers, lanes and writers each keep what they
    have freed: a tenth of a job's memory, and more as the image grows. And left alone the heap shrinks after every
    forward, only to be given the same pages again, zeroed: a tenth of a forward's CPU time, a quarter of training's.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, kept_bytes)
        # Either threshold alone would follow what is freed.
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def give_back() -> None:
    """Return to the system what is free now, wherever it lies in the heap."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

"""Threads share one heap of the C library: asked of glibc itself, in a process of its own."""

import subprocess
import sys

import pytest

_HEAPS = """
import ctypes, sys, threading
from worker.heap import share_one_heap

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
if sys.argv[1] == "shared":
    share_one_heap()
all_there = threading.Barrier(4)

def allocate():
    libc.malloc(1000)
    all_there.wait()  # a heap is given away again when its thread ends

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out)
libc.fclose(out)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own report")
def test_threads_share_one_heap() -> None:
    own, shared = (
        subprocess.run([sys.executable, "-c", _HEAPS, how], capture_output=True, text=True, check=True).stdout
        for how in ("own", "shared")
    )
    assert own.count("<heap nr=") > 1
    assert shared.count("<heap nr=") == 1

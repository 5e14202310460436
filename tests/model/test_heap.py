"""The heap as jobs and training set it up: asked of glibc and of the kernel, in processes of their own."""

import subprocess
import sys

import pytest

_HEAPS = """
import ctypes, sys, threading
from model.heap import KEPT_BY_A_JOB, set_up_heap

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
if sys.argv[1] == "shared":
    set_up_heap(KEPT_BY_A_JOB)
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


_FAULTS = """
import ctypes, resource, sys
from model.heap import KEPT_BY_A_JOB, set_up_heap

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
if sys.argv[1] == "kept":
    set_up_heap(KEPT_BY_A_JOB)

def layer():
    parts = [ctypes.c_void_p(libc.malloc(16 << 20)) for _ in range(4)]
    for part in parts:
        ctypes.memset(part, 1, 16 << 20)
    for part in parts:
        libc.free(part)

for _ in range(3):
    layer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    layer()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's thresholds")
def test_what_a_layer_freed_serves_the_next_one() -> None:
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("own", "kept")
    )
    assert given_back > 50_000
    assert kept < 1000


_HOLES = """
import ctypes
from model.heap import give_back

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
parts = [ctypes.c_void_p(libc.malloc(100_000)) for _ in range(1000)]
for part in parts:
    ctypes.memset(part, 1, 100_000)
for part in parts[:-1]:  # the last one keeps the heap from shrinking
    libc.free(part)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own call")
def test_what_is_free_below_something_else_goes_back() -> None:
    given = subprocess.run([sys.executable, "-c", _HOLES], capture_output=True, text=True, check=True).stdout
    assert int(given) > 90_000_000

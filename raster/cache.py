"""Chunks computed once, shared by threads, kept in memory while a byte budget lasts, and then on disk."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from enum import Enum
from threading import Lock
from typing import Generic, TypeVar

from raster.shelf import Shelf, Slot

V = TypeVar("V")

_UNSETTLED_BYTES = 1 << 30
"""On the shelf: an image that has no levels, and is too small to be given any, is read whole by the first look."""


class Use(Enum):
    """When a value will be wanted again."""

    SOON = "soon"
    LATER = "later"
    NEVER = "never"


class ChunkCache(Generic[V]):
    """Computed values by key; first out are those of later use, the last one first, then the least recently used.

    Values are wanted again in the order in which they were: on a sweep that does not fit, the latest to become of later
    use waits longest, and giving it up costs least. What is out lies on the `shelf` until it is asked for; without
    one, where its disk is full, or where nobody has yet settled what is of use and there is much of it, it is computed
    again.

    Memory bound: finished values sum to at most `budget_bytes` (one value may exceed it alone), plus what is being
    computed: one value a thread. Two threads that want the same key compute it once; the second waits. Keys must be
    computable without a cycle (levels from the file, planes from levels), or the threads would wait for each other.
    """

    def __init__(self, budget_bytes: int, size_of: Callable[[V], int], shelf: Shelf[V] | None = None) -> None:
        self._budget = budget_bytes
        self._size_of = size_of
        self._shelf = shelf
        self._shelved: dict[Hashable, Slot[V]] = {}
        self._settled = False
        self._lock = Lock()
        self._entries: OrderedDict[Hashable, Future[V]] = OrderedDict()
        self._later: dict[Hashable, None] = {}
        self._bytes = 0

    def get(self, key: Hashable, compute: Callable[[], V]) -> V:
        """The value of `key`; whatever `compute` raises, every waiting thread gets, and the key is forgotten."""
        with self._lock:
            future = self._entries.get(key)
            mine = future is None
            if future is None:
                future = self._entries[key] = Future()
                compute = self._taken(key, compute)
            else:
                self._entries.move_to_end(key)
                self._later.pop(key, None)
        if mine:
            self._fill(key, future, compute)
        return future.result()

    def settle(self, use_of: Callable[[Hashable], Use]) -> None:
        """Forget what is of no more use, and note what is of later use; what is being computed stays as it is."""
        with self._lock:
            self._settled = True
            for key in [key for key, future in self._entries.items() if future.done()]:
                use = use_of(key)
                if use is Use.LATER:
                    self._later.setdefault(key)
                else:
                    self._later.pop(key, None)
                if use is Use.NEVER:
                    self._forget(key)

            for key in [key for key in self._shelved if use_of(key) is Use.NEVER]:
                self._free(self._shelved.pop(key))

    def clear(self) -> None:
        """Forget all that is finished."""
        self.settle(lambda key: Use.NEVER)
        self._settled = False

    def close(self) -> None:
        """Nothing is asked for any more."""
        if self._shelf is not None:
            self._shelf.close()

    def _taken(self, key: Hashable, compute: Callable[[], V]) -> Callable[[], V]:
        """`compute`, or for what lies on the shelf whatever takes it down; called under the lock."""
        slot = self._shelved.pop(key, None)
        if slot is None or self._shelf is None:
            return compute
        shelf = self._shelf

        def take() -> V:
            value = shelf.read(slot)
            with self._lock:
                self._free(slot)
            return value

        return take

    def _free(self, slot: Slot[V]) -> None:
        if self._shelf is not None:
            self._shelf.free(slot)

    def _fill(self, key: Hashable, future: "Future[V]", compute: Callable[[], V]) -> None:
        try:
            value = compute()
        except BaseException as error:
            with self._lock:
                del self._entries[key]
            future.set_exception(error)
            return
        future.set_result(value)
        with self._lock:
            self._bytes += self._size_of(value)
            self._evict()

    def _evict(self) -> None:
        while self._bytes > self._budget and len(self._entries) > 1:
            if self._later:
                out: Hashable | None = self._later.popitem()[0]
            else:
                out = next((key for key, future in self._entries.items() if future.done()), None)
            if out is None:
                return
            self._put_aside(out)

    def _put_aside(self, key: Hashable) -> None:
        # Before the first settling nobody knows what is of use, and the shelf would grow with all that is ever read.
        if self._shelf is not None and (self._settled or self._shelf.size < _UNSETTLED_BYTES):
            slot = self._shelf.put(self._entries[key].result())
            if slot is not None:
                self._shelved[key] = slot
        self._forget(key)

    def _forget(self, key: Hashable) -> None:
        self._bytes -= self._size_of(self._entries.pop(key).result())

"""Chunks computed once, kept while a byte budget lasts, shared by threads."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from enum import Enum
from threading import Lock
from typing import Generic, TypeVar

V = TypeVar("V")


class Use(Enum):
    """When a value will be wanted again."""

    SOON = "soon"
    LATER = "later"
    NEVER = "never"


class ChunkCache(Generic[V]):
    """Computed values by key; first out are those of later use, the last one first, then the least recently used.

    Values are wanted again in the order in which they were: on a sweep that does not fit, the latest to become of later
    use waits longest, and giving it up costs least.

    Memory bound: finished values sum to at most `budget_bytes` (one value may exceed it alone), plus what is being
    computed: one value a thread. Two threads that want the same key compute it once; the second waits. Keys must be
    computable without a cycle (levels from the file, planes from levels), or the threads would wait for each other.
    """

    def __init__(self, budget_bytes: int, size_of: Callable[[V], int]) -> None:
        self._budget = budget_bytes
        self._size_of = size_of
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
            else:
                self._entries.move_to_end(key)
                self._later.pop(key, None)
        if mine:
            self._fill(key, future, compute)
        return future.result()

    def settle(self, use_of: Callable[[Hashable], Use]) -> None:
        """Forget what is of no more use, and note what is of later use; what is being computed stays as it is."""
        with self._lock:
            for key in [key for key, future in self._entries.items() if future.done()]:
                use = use_of(key)
                if use is Use.LATER:
                    self._later.setdefault(key)
                else:
                    self._later.pop(key, None)
                if use is Use.NEVER:
                    self._forget(key)

    def clear(self) -> None:
        """Forget all that is finished."""
        self.settle(lambda key: Use.NEVER)

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
                self._forget(self._later.popitem()[0])
                continue
            oldest = next((key for key, future in self._entries.items() if future.done()), None)
            if oldest is None:
                return
            self._forget(oldest)

    def _forget(self, key: Hashable) -> None:
        self._bytes -= self._size_of(self._entries.pop(key).result())

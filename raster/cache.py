"""Chunks computed once, kept while a byte budget lasts, shared by threads."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

V = TypeVar("V")


class ChunkCache(Generic[V]):
    """Computed values by key, least recently used first out.

    Memory bound: finished values sum to at most `budget_bytes` (one value may exceed it alone), plus what is being
    computed: one value a thread. Two threads that want the same key compute it once; the second waits. Keys must be
    computable without a cycle (levels from the file, planes from levels), or the threads would wait for each other.
    """

    def __init__(self, budget_bytes: int, size_of: Callable[[V], int]) -> None:
        self._budget = budget_bytes
        self._size_of = size_of
        self._lock = Lock()
        self._entries: OrderedDict[Hashable, Future[V]] = OrderedDict()
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
        if mine:
            self._fill(key, future, compute)
        return future.result()

    def drop(self, unwanted: Callable[[Hashable], bool]) -> None:
        """Forget what is finished and `unwanted`; what is being computed stays."""
        with self._lock:
            for key in [key for key, future in self._entries.items() if future.done() and unwanted(key)]:
                self._bytes -= self._size_of(self._entries.pop(key).result())

    def clear(self) -> None:
        """Forget all that is finished."""
        self.drop(lambda key: True)

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
            oldest = next((key for key, future in self._entries.items() if future.done()), None)
            if oldest is None:
                return
            self._bytes -= self._size_of(self._entries.pop(oldest).result())

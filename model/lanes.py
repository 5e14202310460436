"""Work on several batches, or several blocks, side by side.

A layer that is split among cores ends with the slowest of them, and a core that also decodes or vectorises is slow;
whole batches need not wait for each other. So on a CPU every lane forwards batches of its own on its own share of the
cores, one core where there are few. Another device takes one batch after the other, and has a queue of its own.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import torch

__all__ = ["Lanes", "ahead", "threads_of_a_lane"]

T = TypeVar("T")
R = TypeVar("R")

_MOST = 4
"""Lanes: each holds the activations of a batch."""
_AHEAD = 1
"""Results that may wait for the caller, a lane: they are lost with the process."""


def ahead(tasks: Iterable[T], work: Callable[[T], R], executor: Executor, depth: int) -> Iterator[tuple[T, R]]:
    """(task, result) in the order of `tasks`, with at most `depth` results held or under way ahead of the caller."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for task in tasks:
            waiting.append((task, executor.submit(work, task)))
            if len(waiting) >= depth:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def _count(cores: int) -> int:
    """How many lanes share so many cores; one less than the most where that leaves fewer cores over (3 x 2 of 6)."""
    if cores <= _MOST:
        return cores
    return max((_MOST - 1, _MOST), key=lambda lanes: (lanes * (cores // lanes), lanes))


@contextmanager
def threads_of_a_lane() -> Iterator[None]:
    """Within it torch computes on as many cores as it will in a lane of this thread's."""
    cores = torch.get_num_threads()
    torch.set_num_threads(cores // _count(cores))
    try:
        yield
    finally:
        torch.set_num_threads(cores)


class Lanes:
    """As many threads as pay on a device; none but the caller's where it is not a CPU. A context manager.

    Within it torch's threads are shared out among the lanes, and the caller has one.
    """

    def __init__(self, device: torch.device) -> None:
        self._cores = torch.get_num_threads()
        self.count = _count(self._cores) if device.type == "cpu" else 1
        self._executor = None
        if device.type == "cpu":
            share = self._cores // self.count
            self._executor = ThreadPoolExecutor(
                self.count, "lane", initializer=torch.set_num_threads, initargs=(share,)
            )

    def __enter__(self) -> Self:
        if self._executor is not None:
            torch.set_num_threads(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            torch.set_num_threads(self._cores)

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        """(task, what `work` makes of it) in the order of `tasks`; some are worked on ahead of the caller."""
        if self._executor is None:
            return ((task, work(task)) for task in tasks)
        return ahead(tasks, work, self._executor, (1 + _AHEAD) * self.count)

    def as_completed(self, work: Callable[[T], R], tasks: Iterable[T], most: int) -> Iterator[tuple[T, R]]:
        """As `map`, for tasks that take unequal times and results that are large: in whichever order they end.

        At most `most` are under way or wait for the caller, and no more than one beyond what there are lanes.
        """
        if self._executor is None:
            yield from self.map(work, tasks)
            return
        under_way: dict[Future[R], T] = {}
        try:
            for task in tasks:
                under_way[self._executor.submit(work, task)] = task
                if len(under_way) == min(self.count + 1, most):
                    yield _first_done(under_way)
            while under_way:
                yield _first_done(under_way)
        finally:
            for future in under_way:
                future.cancel()


def _first_done(under_way: dict[Future[R], T]) -> tuple[T, R]:
    """Taken out of `under_way`."""
    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
    future = next(future for future in under_way if future in done)
    return under_way.pop(future), future.result()

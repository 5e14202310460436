"""Samples from loader processes, in order, cut out ahead of the network."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from foveate.errors import FoveateError, WorkerLost

__all__ = ["loaders_watched", "stream"]

Sampled = TypeVar("Sampled")
_AHEAD = 2
"""Minibatches that each loader process keeps ready."""


class _Refusal:
    """An error of ours on its way out of a loader process; torch would turn it into text."""

    def __init__(self, error: FoveateError) -> None:
        self.kind, self.message, self.hint = type(error), error.message, error.hint


class _Minibatches(Dataset[Any], Generic[Sampled]):
    """Whole minibatches by their keys, gathered where they are made."""

    def __init__(self, samples: Dataset[Sampled], gather: Callable[[Sequence[Sampled]], Sampled]) -> None:
        self._samples, self._gather = samples, gather

    def __getitem__(self, keys: Sequence[tuple[int, int]]) -> Sampled | _Refusal:
        try:
            return self._gather([self._samples[key] for key in keys])
        except FoveateError as error:
            return _Refusal(error)


def stream(
    samples: Dataset[Sampled],
    keys: Iterable[Sequence[tuple[int, int]]],
    gather: Callable[[Sequence[Sampled]], Sampled],
    *,
    loaders: int,
    pin: bool = False,
) -> Iterator[Sampled]:
    """The gathered samples of each entry of `keys`, in order; `loaders` 0: made in this process.

    `samples` and `gather` go to other processes, so they must be picklable. Errors of ours arrive as they were raised.
    """
    made = DataLoader(
        _Minibatches(samples, gather),
        sampler=keys,
        batch_size=None,
        num_workers=loaders,
        # Not fork: the parent has threads.
        multiprocessing_context="spawn" if loaders else None,
        prefetch_factor=_AHEAD if loaders else None,
        worker_init_fn=_alone,
        pin_memory=pin,
    )
    for minibatch in made:
        if isinstance(minibatch, _Refusal):
            raise minibatch.kind(minibatch.message, hint=minibatch.hint)
        yield minibatch


@contextlib.contextmanager
def loaders_watched() -> Iterator[None]:
    """Raises WorkerLost if a loader process was killed: torch then interrupts whatever the main thread does."""
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise WorkerLost(
            f"a process that reads images ahead of the network has ended: {str(error) or type(error).__name__}",
            hint="the same command goes on from the last checkpoint; if memory ran out, ask for fewer `loaders` first",
        ) from error


def _alone(_: int) -> None:
    # The processor belongs to the network; a loader process does with one thread.
    torch.set_num_threads(1)

"""The loop that both methods train in: samples in order, updates, checkpoints, and what is told of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from model.training.checkpoints import Checkpoints
from model.training.config import TrainConfig
from model.training.devices import Place
from model.training.journal import Journal, telling
from model.training.stream import loaders_watched, stream

__all__ = ["Learner", "Pictures", "Updates", "fit", "no_pictures"]

Sampled = TypeVar("Sampled")
Taken_contra = TypeVar("Taken_contra", contravariant=True)

Pictures = Callable[[int], Iterable[tuple[str, NDArray[np.uint8]]]]
"""What is to be shown after so many updates, as names and (H, W, 3) pixels."""


class Learner(Protocol[Taken_contra]):
    """What is trained, and how one update changes it. All its state travels in `state_dict`."""

    def update(self, sample: Taken_contra, step: int) -> dict[str, float]:
        """Update number `step` (from 0); the report begins with "loss"."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def finish(self) -> None:
        """Leave in the nets what is kept in the end."""


class Updates(Generic[Sampled]):
    """Which samples each update takes; `slots` of them, shared out among the processes."""

    def __init__(
        self,
        name: str,
        steps: int,
        slots: int,
        samples: Dataset[Sampled],
        gather: Callable[[Sequence[Sampled]], Sampled],
    ) -> None:
        self.name, self.steps, self.slots, self.samples, self.gather = name, steps, slots, samples, gather

    def keys(self, start: int, place: Place) -> Iterator[list[tuple[int, int]]]:
        """(update, slot) of this process's samples from update `start` on."""
        share = self.slots // place.world
        for update in range(start, self.steps):
            yield [(update, place.rank * share + k) for k in range(share)]


def no_pictures(step: int) -> Iterable[tuple[str, NDArray[np.uint8]]]:
    return ()


def fit(
    learner: Learner[Sampled],
    updates: Updates[Sampled],
    config: TrainConfig,
    place: Place,
    pictures: Pictures = no_pictures,
) -> None:
    """Train until the last of `updates`, from the run's checkpoint where there is one.

    A resumed run takes the very updates that an unbroken one would have taken. The first process alone writes.
    """
    checkpoints = Checkpoints(config.run / "checkpoint.pt", config.checkpoint_minutes)
    start = 0
    if (state := checkpoints.load()) is not None:
        start = state["step"]
        learner.load_state_dict(state["learner"])
    if start < updates.steps:
        journal = Journal(config.run, start, updates.steps) if place.rank == 0 else None
        try:
            _go_on(learner, updates, config, place, start, checkpoints, journal, pictures)
        finally:
            if journal is not None:
                journal.close()
    learner.finish()


def _go_on(
    learner: Learner[Sampled],
    updates: Updates[Sampled],
    config: TrainConfig,
    place: Place,
    start: int,
    checkpoints: Checkpoints,
    journal: Journal | None,
    pictures: Pictures,
) -> None:
    cuda = place.device.type == "cuda"
    keys = updates.keys(start, place)
    samples = stream(updates.samples, keys, updates.gather, loaders=config.loaders, pin=cuda)
    with loaders_watched(), telling(updates.name, start, updates.steps) as told:
        for step, sample in enumerate(samples, start):
            # Dropout is the only chance in an update that does not come with the samples.
            torch.manual_seed(config.seed * 1_000_003 + step * place.world + place.rank)
            report = learner.update(sample, step)
            if journal is None:
                continue
            journal.record(step + 1, report)
            told.tell(step + 1, report["loss"])
            for name, pixels in pictures(step + 1):
                journal.picture(name, step + 1, pixels)
            if checkpoints.due or step + 1 == updates.steps:
                checkpoints.save({"step": step + 1, "learner": learner.state_dict()})

"""How many patches go through the network at once."""

from collections.abc import Iterator, Sequence

import numpy as np

from model.predictor import Predictor
from worker.compute import AHEAD
from worker.job import Job, threads
from worker.plan import Plan
from worker.trees import shots_of


def batch_for(job: Job, plan: Plan, predictor: Predictor) -> int:
    """What was asked for; else a few on a CPU; else as many as pay on the device, fit the host, and fill the blocks."""
    if job.spec.batch is not None or not predictor.tries_batches:
        return job.batch
    loads = list(_loads(job, plan))
    mixed = 1 if plan.weights is None else plan.bank
    patch_bytes = job.card.patch_size**2 * len(job.card.input.bands) * np.dtype(job.card.input.dtype).itemsize
    held = job.budget.ahead_bytes // (AHEAD * threads() * mixed * patch_bytes)
    return evened(predictor.best_batch(min(held, max(loads, default=1)), mixed), loads)


def evened(most: int, loads: Sequence[int]) -> int:
    """The batch, more than half of `most`, that fills up least: a block's last batch is filled up to the full size."""
    return min(range(most // 2 + 1, most + 1), key=lambda size: (sum(-(-load // size) * size for load in loads), -size))


def _loads(job: Job, plan: Plan) -> Iterator[int]:
    """Forwards of each block; under refined coverage, which decides as it goes, those of the level below the roots."""
    for block in job.placement.blocks:
        if job.tree is not None and job.coverage.kind == "refined":
            ratio = job.tree.scales[-1] // job.tree.scales[max(0, job.tree.top - 1)]
            yield len(block.rows) * len(block.columns) * ratio**2
        else:
            yield sum(1 for _ in shots_of(job, plan, block))

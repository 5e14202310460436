"""The classes of pixels out of their scores.

Letters: K classes; the axes after them are any.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["labels", "only"]


def labels(scores: Tensor, examined: Tensor, values: list[int], nodata: int) -> Tensor:
    """uint8 (...): of scores (K, ...), sums or shares, the value of the highest, ties to the lower class; `nodata`,
    which is above every value, where not `examined` (...).

    Class by class, and by arithmetic on bytes, of which a processor does many at once: choosing with `where`, or
    indices of eight bytes, take several times as long.
    """
    ranks = _ranks(scores) if scores.device.type != "cpu" else torch.from_numpy(_ranks_on_cpu(scores.numpy()))
    return only(_valued(ranks, values), examined, nodata)


def only(found: Tensor, kept: Tensor, nodata: int) -> Tensor:
    """The labels, uint8, where `kept` is True, and elsewhere `nodata`, which is above every value."""
    return torch.maximum(found, (~kept).view(torch.uint8) * nodata)


def _ranks(scores: Tensor) -> Tensor:
    best = scores[0]
    ranks = torch.zeros_like(best, dtype=torch.uint8)
    for rank, own in enumerate(scores[1:], start=1):
        ranks = torch.maximum(ranks, (own > best).view(torch.uint8) * rank)
        best = torch.maximum(best, own)
    return ranks


def _ranks_on_cpu(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The same, where memory that is fresh costs more than what is done with it."""
    best = scores[0].copy()
    ranks, own = np.zeros(best.shape, np.uint8), np.empty(best.shape, np.uint8)
    better = np.empty(best.shape, bool)
    for rank, found in enumerate(scores[1:], start=1):
        np.greater(found, best, out=better)
        np.multiply(better.view(np.uint8), np.uint8(rank), out=own)
        np.maximum(ranks, own, out=ranks)
        np.maximum(best, found, out=best)
    return ranks


def _valued(ranks: Tensor, values: list[int]) -> Tensor:
    """uint8: for each rank its value."""
    if values == list(range(len(values))):
        return ranks
    found = torch.zeros_like(ranks)
    for rank, value in enumerate(values):
        found += (ranks == rank).view(torch.uint8) * value
    return found

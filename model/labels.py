"""The classes of pixels out of their scores.

Letters: K classes; the axes after them are any.
"""

import torch
from torch import Tensor

__all__ = ["labels", "only"]


def labels(scores: Tensor, examined: Tensor, values: list[int], nodata: int) -> Tensor:
    """uint8 (...): of scores (K, ...), sums or shares, the value of the highest, ties to the lower class; `nodata`,
    which is above every value, where not `examined` (...).

    Class by class, and by arithmetic on bytes, of which a processor does many at once: choosing with `torch.where`, or
    indices of eight bytes, take several times as long.
    """
    best = scores[0]
    ranks = torch.zeros_like(best, dtype=torch.uint8)
    for rank, own in enumerate(scores[1:], start=1):
        ranks = torch.maximum(ranks, (own > best).view(torch.uint8) * rank)
        best = torch.maximum(best, own)
    return only(_valued(ranks, values), examined, nodata)


def only(found: Tensor, kept: Tensor, nodata: int) -> Tensor:
    """The labels, uint8, where `kept` is True, and elsewhere `nodata`, which is above every value."""
    return torch.maximum(found, (~kept).view(torch.uint8) * nodata)


def _valued(ranks: Tensor, values: list[int]) -> Tensor:
    """uint8: for each rank its value."""
    if values == list(range(len(values))):
        return ranks
    found = torch.zeros_like(ranks)
    for rank, value in enumerate(values):
        found += (ranks == rank).view(torch.uint8) * value
    return found

"""Chains of linked nodes put in order by arrays alone, without a loop over their members."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Walks:
    """Chains of n nodes: chain k is order[starts[k] : starts[k + 1]].

    `order` (n,) names every node once. `closed` (chains,): the last node leads back to the first, which is then the
    smallest of the chain. `chain_of` (n,): the chain of each node.
    """

    order: Indices
    starts: Indices
    closed: NDArray[np.bool_]
    chain_of: Indices


def walks(following: Indices) -> Walks:
    """The chains of `following` (n,): the next node of each; a node without one names itself.

    No node follows two. Every round of doubling looks twice as far ahead, so rounds grow with the logarithm of the
    longest chain.
    """
    nodes = np.arange(len(following), dtype=np.int64)
    smallest = _smallest_of_ring(following, nodes)
    cut = np.where(following == smallest, nodes, following)
    steps, last = (cut != nodes).astype(np.int64), cut
    while not np.array_equal(farther := last[last], last):
        steps += steps[last]
        last = farther
    ends = np.flatnonzero(cut == nodes)
    numbers = np.empty_like(nodes)
    numbers[ends] = np.arange(len(ends))
    chain_of = numbers[last]
    starts = np.concatenate([[0], np.cumsum(np.bincount(chain_of, minlength=len(ends)))])
    order = np.empty_like(nodes)
    order[starts[chain_of + 1] - 1 - steps] = nodes
    return Walks(order, starts, smallest[ends] >= 0, chain_of)


def _smallest_of_ring(following: Indices, nodes: Indices) -> Indices:
    """(n,): the smallest node of the ring that each node is in; -1: its chain has an end."""
    smallest = np.where(following == nodes, -1, nodes)
    smallest = np.minimum(smallest, smallest[following])
    ahead = following[following]
    while not np.array_equal(least := np.minimum(smallest, smallest[ahead]), smallest):
        smallest, ahead = least, ahead[ahead]
    return smallest

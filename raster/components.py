"""Connected components of one tile of a mask: pixels of one value that touch along an edge."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Components:
    """The components of a tile, numbered from 0.

    `labels`: int32 (height, width), the component of each pixel. `values`: uint8 (n,), the mask's value in each.
    `areas`: int64 (n,), pixels of each.
    """

    labels: NDArray[np.int32]
    values: NDArray[np.uint8]
    areas: NDArray[np.int64]


def label_components(tile: NDArray[np.uint8]) -> Components:
    """Label `tile`, uint8 (height, width), with 4-connectivity.

    Pixels are first joined to horizontal runs; runs that touch from row to row are then joined by hooking each tree of
    runs under the smallest number it meets and halving the paths, until nothing moves.
    """
    starts = np.ones(tile.shape, dtype=bool)
    starts[:, 1:] = tile[:, 1:] != tile[:, :-1]
    runs = (np.cumsum(starts.ravel(), dtype=np.int32) - 1).reshape(tile.shape)
    touching = tile[1:] == tile[:-1]
    touching[:, 1:] &= starts[1:, 1:] | starts[:-1, 1:] | ~touching[:, :-1]
    roots = _joined(int(runs[-1, -1]) + 1, runs[:-1][touching], runs[1:][touching])
    first, numbers = np.unique(roots, return_inverse=True)
    labels = numbers.astype(np.int32)[runs]
    first_pixels = np.flatnonzero(starts.ravel())[first]
    return Components(labels, tile.ravel()[first_pixels], np.bincount(labels.ravel()))


def _joined(count: int, left: NDArray[np.int32], right: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each of `count` nodes the smallest node that the edges (left, right) connect it to."""
    parents = np.arange(count, dtype=np.int32)
    while left.size:
        a, b = parents[left], parents[right]
        apart = a != b
        left, right, a, b = left[apart], right[apart], a[apart], b[apart]
        np.minimum.at(parents, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(parents, parents[parents]):
            parents = parents[parents]
    return parents

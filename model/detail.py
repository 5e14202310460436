"""How much every node of a tree asks for its children, from a thumbnail alone; numpy, never torch.

A thumbnail pixel stands for `step` working pixels. On the trial's mosaics the gradient of a thumbnail of 16 working
pixels a pixel plans as well as pixels of the finest level do, so nothing else is ever decoded for a plan.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.tree import Tree
from raster.rows import Rows

__all__ = ["gradient", "means", "planned_needs"]


def gradient(thumbnail_HWC: NDArray[Any], valid_HW: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """(H, W): the change of grey to the pixel above and to that on the left; 0 next to pixels that are not all data."""
    grey: NDArray[np.float32] = thumbnail_HWC.astype(np.float32).mean(axis=2)
    change = np.zeros_like(grey)
    for axis in (0, 1):
        later: tuple[slice, ...] = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        earlier: tuple[slice, ...] = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        difference = np.abs(grey[later] - grey[earlier])
        if valid_HW is not None:
            difference[(valid_HW[later] < 1) | (valid_HW[earlier] < 1)] = 0
        change[later] += difference
    return change


def means(
    values_HW: NDArray[np.float32], step: int, tree: Tree, level: int, nodes: range | None = None
) -> NDArray[np.float32]:
    """(rows, columns): the mean of a thumbnail's values under each node's square, in whole pixels and at least one.

    With `nodes`, a range of the level's rows, of those alone: the values then begin with the first pixel under them.
    """
    integral = np.pad(values_HW.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = tree.grid(level)
    y0, y1 = _ends(range(rows) if nodes is None else nodes, tree.side(level), step, values_HW.shape[0])
    x0, x1 = _ends(range(columns), tree.side(level), step, values_HW.shape[1])
    total = integral[np.ix_(y1, x1)] - integral[np.ix_(y0, x1)] - integral[np.ix_(y1, x0)] + integral[np.ix_(y0, x0)]
    mean: NDArray[np.float32] = (total / np.outer(y1 - y0, x1 - x0)).astype(np.float32)
    return mean


class Wants(Protocol):
    """F_theta's probabilities (D, rows, W) for rows of the thumbnail."""

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]: ...


def planned_needs(
    tree: Tree, thumbnail_HWC: Rows, valid_HW: Rows | None, step: int, wants: Wants | None
) -> list[NDArray[np.float32]]:
    """For every level what `plan_leaves` takes: mean gradient times scale; nothing for level 0.

    With F_theta's `wants`, times the mean probability of all finer levels. A row of roots is looked at after the other.
    """
    needs = [np.zeros(tree.grid(level), np.float32) for level in range(len(tree.scales))]
    for row in range(tree.grid(tree.top)[0]):
        side = tree.side(tree.top)
        first, last = row * side // step, min(-(-(row + 1) * side // step), thumbnail_HWC.shape[0])
        above = min(first, 1)
        around = slice(first - above, last)
        change = gradient(thumbnail_HWC[around], None if valid_HW is None else valid_HW[around])[above:]
        finer = None if wants is None else np.cumsum(wants[first:last], axis=0)
        for level in range(1, len(tree.scales)):
            ratio = tree.scales[-1] // tree.scales[level]
            under = range(row * ratio, min((row + 1) * ratio, tree.grid(level)[0]))
            need = means(change, step, tree, level, under) * np.float32(tree.scales[level])
            if finer is not None:
                need = need * means(finer[level - 1], step, tree, level, under)
            needs[level][under.start : under.stop] = need
    return needs


def _ends(places: range, side: int, step: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel along one axis of the squares at these places, and the one after its last; of `length` pixels of a
    thumbnail, which begin with the first one under them."""
    start = np.arange(places.start, places.stop, dtype=np.int64) * side
    origin = places.start * side // step
    first = np.minimum(start // step - origin, length - 1)
    return first, np.clip(-(-(start + side) // step) - origin, first + 1, length)

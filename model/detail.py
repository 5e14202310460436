"""How much every node of a tree asks for its children, from a thumbnail alone; numpy, never torch.

A thumbnail pixel stands for `step` working pixels. On the trial's mosaics the gradient of a thumbnail of 16 working
pixels a pixel plans as well as pixels of the finest level do, so nothing else is ever decoded for a plan.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.tree import Tree

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


def means(values_HW: NDArray[np.float32], step: int, tree: Tree, level: int) -> NDArray[np.float32]:
    """(rows, columns): the mean of a thumbnail's values under each node's square, in whole pixels and at least one."""
    integral = np.pad(values_HW.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = tree.grid(level)
    y0, y1 = _ends(rows, tree.side(level), step, values_HW.shape[0])
    x0, x1 = _ends(columns, tree.side(level), step, values_HW.shape[1])
    total = integral[np.ix_(y1, x1)] - integral[np.ix_(y0, x1)] - integral[np.ix_(y1, x0)] + integral[np.ix_(y0, x0)]
    mean: NDArray[np.float32] = (total / np.outer(y1 - y0, x1 - x0)).astype(np.float32)
    return mean


def planned_needs(
    tree: Tree,
    thumbnail_HWC: NDArray[Any],
    valid_HW: NDArray[np.float32] | None,
    step: int,
    distribution_DHW: NDArray[np.float32] | None,
) -> list[NDArray[np.float32]]:
    """For every level what `plan_leaves` takes: mean gradient times scale; nothing for level 0.

    With F_theta's `distribution_DHW` (at every thumbnail pixel), times the mean probability of all finer levels.
    """
    change = gradient(thumbnail_HWC, valid_HW)
    needs = [np.zeros(tree.grid(0), np.float32)]
    for level in range(1, len(tree.scales)):
        need = means(change, step, tree, level) * np.float32(tree.scales[level])
        if distribution_DHW is not None:
            need = need * means(distribution_DHW[:level].sum(axis=0), step, tree, level)
        needs.append(need)
    return needs


def _ends(count: int, side: int, step: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First thumbnail pixel of every square along one axis, and the one after its last."""
    start = np.arange(count, dtype=np.int64) * side
    first = np.minimum(start // step, length - 1)
    return first, np.clip(-(-(start + side) // step), first + 1, length)

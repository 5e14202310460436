"""The manifest's counts: what the plan needs, recomputed from the plan alone."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foveate.schema import ImageInfo
from raster.grid import Lattice, WorkingGrid
from worker.plan import EXAMINED, Plan


def patches_by_fov(plan: Plan) -> list[int]:
    """Patches read for each field of view of the bank."""
    examined = plan.reason == EXAMINED
    if plan.kind != "single":
        return [int(examined.sum())] * plan.bank
    return [int(((plan.choice == fov) & examined).sum()) for fov in range(plan.bank)]


def forwards(plan: Plan) -> int:
    """Patches that the network sees."""
    examined = int((plan.reason == EXAMINED).sum())
    return examined * plan.bank if plan.kind == "ensemble" else examined


def pixels_needed(
    plan: Plan, lattice: Lattice, grid: WorkingGrid, info: ImageInfo, level_of: Callable[[int], int]
) -> int:
    """Distinct pixels of the file under the union of the windows, at the levels that they are read from.

    `level_of(fov)` is the level that a field of view of the bank is read from.
    """
    by_level: dict[int, list[int]] = defaultdict(list)
    for fov in range(plan.bank):
        by_level[level_of(fov)].append(fov)
    return sum(_union(plan, lattice, grid, info, level, fovs) for level, fovs in by_level.items())


def _union(plan: Plan, lattice: Lattice, grid: WorkingGrid, info: ImageInfo, level: int, fovs: list[int]) -> int:
    """Pixels of one level under the windows of `fovs`: rectangles on a grid of all their edges, counted once."""
    size = info.levels[level]
    x_edges = [_edges(lattice, fov, lattice.columns, grid.ratio[0] / size.downsample[0], size.width) for fov in fovs]
    y_edges = [_edges(lattice, fov, lattice.rows, grid.ratio[1] / size.downsample[1], size.height) for fov in fovs]
    xs, ys = np.unique(np.concatenate(x_edges)), np.unique(np.concatenate(y_edges))
    change = np.zeros((len(ys) + 1, len(xs) + 1), np.int64)
    examined = plan.reason == EXAMINED
    for fov, x_edge, y_edge in zip(fovs, x_edges, y_edges, strict=True):
        rows, columns = np.nonzero(examined & (plan.choice == fov) if plan.kind == "single" else examined)
        x0, x1 = np.searchsorted(xs, x_edge[0][columns]), np.searchsorted(xs, x_edge[1][columns])
        y0, y1 = np.searchsorted(ys, y_edge[0][rows]), np.searchsorted(ys, y_edge[1][rows])
        for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
            np.add.at(change, (y, x), sign)
    covered = change.cumsum(0).cumsum(1)[:-1, :-1][: len(ys) - 1, : len(xs) - 1] > 0
    return int((np.diff(ys)[:, None] * np.diff(xs)[None, :])[covered].sum())


def _edges(lattice: Lattice, fov: int, count: int, scale: float, length: int) -> NDArray[np.int64]:
    """(2, count): first and last level pixel edges of the windows along one axis, cut at the level's border."""
    side = lattice.fovs[fov]
    start = (lattice.patch - side) / 2 + np.arange(count) * lattice.stride
    edges = np.stack([np.floor(start * scale + 1e-9), np.ceil((start + side) * scale - 1e-9)])
    cut: NDArray[np.int64] = np.clip(edges, 0, length).astype(np.int64)
    return cut

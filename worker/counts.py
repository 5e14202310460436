"""The manifest's counts: what the plan needs, recomputed from the plan alone."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.schema import ImageInfo
from model.tree import Tree
from raster.grid import Lattice, WorkingGrid
from worker.plan import EXAMINED, Plan


@dataclass(frozen=True)
class Seen:
    """The windows of one field of view: `mask` (rows, columns) says which are read; number k begins at
    `start + k * step` and is `side` working pixels long.
    """

    mask: NDArray[np.bool_]
    start: float
    step: int
    side: int


def windows_of(plan: Plan, lattice: Lattice) -> list[Seen]:
    """What a plan over a lattice reads, by field of view."""
    examined = plan.reason == EXAMINED
    single = plan.kind == "single"
    return [
        Seen(examined & (plan.choice == fov) if single else examined, (lattice.patch - side) / 2, lattice.stride, side)
        for fov, side in enumerate(lattice.fovs)
    ]


def windows_of_tree(plan: Plan, tree: Tree, *, inner: bool) -> list[Seen]:
    """What a plan over a tree reads, by level; with `inner` also the nodes above the leaves."""
    examined = plan.reason == EXAMINED
    return [
        Seen(
            tree.pooled(examined & (plan.choice <= level if inner else plan.choice == level), level),
            -tree.margin * scale,
            tree.side(level),
            tree.patch * scale,
        )
        for level, scale in enumerate(tree.scales)
    ]


def forwards(plan: Plan, seen: Sequence[Seen]) -> int:
    """Patches that the network sees."""
    if plan.kind == "tree":
        return sum(int(windows.mask.sum()) for windows in seen)
    examined = int((plan.reason == EXAMINED).sum())
    return examined * plan.bank if plan.kind == "ensemble" else examined


def pixels_needed(seen: Sequence[Seen], grid: WorkingGrid, info: ImageInfo, level_of: Callable[[int], int]) -> int:
    """Distinct pixels of the file under the union of the windows, at the levels that they are read from.

    `seen` by field of view of the bank; `level_of(fov)` is the level that it is read from.
    """
    by_level: dict[int, list[Seen]] = defaultdict(list)
    for fov, windows in enumerate(seen):
        by_level[level_of(fov)].append(windows)
    return sum(_union(windows, grid, info, level) for level, windows in by_level.items())


def _union(seen: list[Seen], grid: WorkingGrid, info: ImageInfo, level: int) -> int:
    """Pixels of one level under all these windows: rectangles on a grid of all their edges, counted once."""
    size = info.levels[level]
    x_edges = [_edges(s, s.mask.shape[1], grid.ratio[0] / size.downsample[0], size.width) for s in seen]
    y_edges = [_edges(s, s.mask.shape[0], grid.ratio[1] / size.downsample[1], size.height) for s in seen]
    xs, ys = np.unique(np.concatenate(x_edges, 1)), np.unique(np.concatenate(y_edges, 1))
    change = np.zeros((len(ys) + 1, len(xs) + 1), np.int64)
    for windows, x_edge, y_edge in zip(seen, x_edges, y_edges, strict=True):
        rows, columns = np.nonzero(windows.mask)
        x0, x1 = np.searchsorted(xs, x_edge[0][columns]), np.searchsorted(xs, x_edge[1][columns])
        y0, y1 = np.searchsorted(ys, y_edge[0][rows]), np.searchsorted(ys, y_edge[1][rows])
        for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
            np.add.at(change, (y, x), sign)
    covered = change.cumsum(0).cumsum(1)[:-1, :-1][: len(ys) - 1, : len(xs) - 1] > 0
    return int((np.diff(ys)[:, None] * np.diff(xs)[None, :])[covered].sum())


def _edges(windows: Seen, count: int, scale: float, length: int) -> NDArray[np.int64]:
    """(2, count): first and last level pixel edges of the windows along one axis, cut at the level's border."""
    start = windows.start + np.arange(count) * windows.step
    edges = np.stack([np.floor(start * scale + 1e-9), np.ceil((start + windows.side) * scale - 1e-9)])
    cut: NDArray[np.int64] = np.clip(edges, 0, length).astype(np.int64)
    return cut

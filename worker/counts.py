"""The manifest's counts: what the plan needs, recomputed from the plan alone."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    """Pixels of one level under all these windows, counted once: from edge to edge down the image, whose rows of
    windows that lie there cover stretches of one row."""
    size = info.levels[level]
    x_edges = [_edges(s, s.mask.shape[1], grid.ratio[0] / size.downsample[0], size.width) for s in seen]
    y_edges = [_edges(s, s.mask.shape[0], grid.ratio[1] / size.downsample[1], size.height) for s in seen]
    xs, ys = np.unique(np.concatenate(x_edges, 1)), np.unique(np.concatenate(y_edges, 1))
    widths = np.diff(xs)
    coming: list[tuple[int, int, int, int]] = []
    for number, (windows, edges) in enumerate(zip(seen, y_edges, strict=True)):
        rows = np.flatnonzero(windows.mask.any(axis=1)).tolist()
        coming += [(int(edges[0, row]), int(edges[1, row]), number, row) for row in rows]
    coming.sort(reverse=True)
    here: list[tuple[int, NDArray[np.bool_]]] = []
    total = 0
    for y, below in pairwise(ys.tolist()):
        here = [(end, stretches) for end, stretches in here if end > y]
        while coming and coming[-1][0] <= y:
            _, end, number, row = coming.pop()
            here.append((end, _stretches(seen[number].mask[row], x_edges[number], xs)))
        if here:
            covered = np.logical_or.reduce([stretches for _, stretches in here])
            total += (below - y) * int(widths[covered].sum())
    return total


def _stretches(read: NDArray[np.bool_], edges: NDArray[np.int64], xs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which stretches between neighbouring `xs` one row of windows covers, of which `read` (columns,) are read."""
    change = np.zeros(len(xs), np.int64)
    for edge, sign in zip(edges[:, read], (1, -1), strict=True):
        np.add.at(change, np.searchsorted(xs, edge), sign)
    covered: NDArray[np.bool_] = change.cumsum()[:-1] > 0
    return covered


def _edges(windows: Seen, count: int, scale: float, length: int) -> NDArray[np.int64]:
    """(2, count): first and last level pixel edges of the windows along one axis, cut at the level's border."""
    start = windows.start + np.arange(count) * windows.step
    edges = np.stack([np.floor(start * scale + 1e-9), np.ceil((start + windows.side) * scale - 1e-9)])
    cut: NDArray[np.int64] = np.clip(edges, 0, length).astype(np.int64)
    return cut

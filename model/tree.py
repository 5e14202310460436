"""A tree of fields of view over the working grid (design 2, adaptive coverage). Needs numpy, never torch.

A node (level, row, column) owns the square of `stride * scale` working pixels a side at that place, where `scale` is
its field of view over the patch; its patch sees the field of view around that square. The children of a node share out
its square. Level 0 is the finest; its squares are the cells that everything per place is stored on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from foveate.errors import OptionInvalid
from raster.geometry import Region, Size
from raster.grid import Lattice, count_of, make_lattice

__all__ = ["Node", "Tree", "make_tree", "plan_leaves"]


@dataclass(frozen=True, order=True)
class Node:
    level: int
    row: int
    column: int


@dataclass(frozen=True)
class Tree:
    """The nodes over a working grid of `size`; `scales[level]` working pixels make one pixel of a patch there."""

    size: Size
    patch: int
    stride: int
    """Side of a finest square, and the dense lattice's stride for the same overlap."""
    scales: tuple[int, ...]

    @property
    def top(self) -> int:
        """The level of the roots."""
        return len(self.scales) - 1

    @property
    def margin(self) -> int:
        """Pixels of a patch above and left of the square that it owns."""
        return (self.patch - self.stride) // 2

    @property
    def overlap_px(self) -> int:
        return self.patch - self.stride

    @property
    def cells(self) -> Lattice:
        """The finest nodes as a lattice."""
        return self._lattice(0)

    @property
    def dense(self) -> Lattice:
        """The lattice of dense coverage with the same stride, which ends where finest squares may hang over."""
        rows, columns = (count_of(length, self.patch, self.stride) for length in self.size.shape)
        return Lattice(self.size, self.patch, self._fovs, self.stride, True, columns, rows)

    @property
    def roots(self) -> Lattice:
        """The coarsest nodes as a lattice, whose windows hold those of all nodes under them."""
        return self._lattice(self.top)

    def grid(self, level: int) -> tuple[int, int]:
        """Rows and columns of the nodes of a level that meet the image."""
        side = self.side(level)
        return -(-self.size.height // side), -(-self.size.width // side)

    def side(self, level: int) -> int:
        """Working pixels along a side of the squares of a level."""
        return self.stride * self.scales[level]

    def ratio(self, level: int) -> int:
        """Squares of the next finer level along a side of one of this level."""
        return self.scales[level] // self.scales[level - 1]

    def window(self, node: Node) -> Region:
        """The working pixels that the node's patch sees."""
        scale = self.scales[node.level]
        x, y = (k * self.stride - self.margin for k in (node.column, node.row))
        return Region(x * scale, y * scale, self.patch * scale, self.patch * scale)

    def cells_of(self, node: Node) -> tuple[slice, slice]:
        """Rows and columns of the cells under the node, for arrays over all cells."""
        scale = self.scales[node.level]
        rows, columns = (slice(k * scale, (k + 1) * scale) for k in (node.row, node.column))
        return rows, columns

    def children(self, node: Node) -> Iterator[Node]:
        """The node's children that meet the image, in lattice order."""
        ratio, (rows, columns) = self.ratio(node.level), self.grid(node.level - 1)
        for row in range(node.row * ratio, min((node.row + 1) * ratio, rows)):
            for column in range(node.column * ratio, min((node.column + 1) * ratio, columns)):
                yield Node(node.level - 1, row, column)

    def pooled(self, cells: NDArray[np.bool_], level: int) -> NDArray[np.bool_]:
        """(rows, columns) of a level: whether any cell under each node is set."""
        found: NDArray[np.bool_] = np.any(self._squares(cells, level), axis=(1, 3))
        return found

    def spread(self, nodes: NDArray[np.bool_], level: int) -> NDArray[np.bool_]:
        """Values of a level's nodes (rows, columns) at the cells under them."""
        rows, columns = self.grid(0)
        scale = self.scales[level]
        return nodes.repeat(scale, 0).repeat(scale, 1)[:rows, :columns]

    def leaves(self, leaf: NDArray[np.int8], examined: NDArray[np.bool_]) -> Iterator[Node]:
        """The nodes that own cells, top down and in lattice order, where no node was refined in part.

        `leaf` (cells): the level of the node that owns a cell; nodes without any examined cell are left out.
        """
        for level in range(self.top, -1, -1):
            for row, column in np.argwhere(self.pooled((leaf == level) & examined, level)).tolist():
                yield Node(level, row, column)

    def leaves_under(self, root: Node, leaf: NDArray[np.int8], examined: NDArray[np.bool_]) -> Iterator[Node]:
        """As `leaves`, of those under one root."""
        under = self.cells_of(root)
        own, seen = leaf[under], examined[under]
        for level in range(self.top, -1, -1):
            scale, ratio = self.scales[level], self.scales[-1] // self.scales[level]
            here = np.argwhere((own == level) & seen) // scale
            for row, column in np.unique(here, axis=0).tolist():
                yield Node(level, root.row * ratio + row, root.column * ratio + column)

    def _lattice(self, level: int) -> Lattice:
        rows, columns = self.grid(level)
        scale = self.scales[level]
        side = self.patch * scale
        return Lattice(self.size, side, self._fovs, self.side(level), True, columns, rows, -self.margin * scale)

    @property
    def _fovs(self) -> tuple[int, ...]:
        return tuple(self.patch * scale for scale in self.scales)

    def _squares(self, cells: NDArray[np.bool_], level: int) -> NDArray[np.bool_]:
        scale = self.scales[level]
        rows, columns = self.grid(level)
        pad = ((0, rows * scale - cells.shape[0]), (0, columns * scale - cells.shape[1]))
        return np.pad(cells, pad).reshape(rows, scale, columns, scale)


def make_tree(size: Size, patch: int, fovs: tuple[int, ...], overlap: float) -> Tree:
    """The tree of the bank `fovs` whose finest level has dense's stride for that overlap.

    Raises OptionInvalid where a field of view is not a whole multiple of the next finer one.
    """
    if len(fovs) < 2 or fovs[0] != patch or any(coarse % fine for fine, coarse in pairwise(fovs)):
        raise OptionInvalid(
            f"fovs {list(fovs)} of patch {patch} do not nest: each must be a whole multiple of the one before it",
            hint="Use --coverage dense, or a bundle with nested fields of view, such as 256, 512, 1024.",
        )
    stride = make_lattice(size, patch, fovs, overlap).stride
    return Tree(size, patch, stride, tuple(fov // patch for fov in fovs))


def plan_leaves(
    tree: Tree, need: list[NDArray[np.float32]], examined: NDArray[np.bool_], share: float, dense: int
) -> tuple[NDArray[np.int8], float]:
    """Leaves for at most `share` of the `dense` forwards of dense coverage, all children of a node or none; and the
    threshold.

    `need[level]` (rows, columns) of each level from 1 to the roots' (`need[0]` is not read) says how much a node asks
    for its children; `examined` (cells). A node is replaced by its children if its need, and that of all above it, is
    beyond one threshold for the whole image. Returns the owner's level for every cell, examined or not. The roots are
    always there, whatever they cost; a share of 1 is the finest level everywhere, whose squares may be a few more than
    dense's windows (`Tree.dense`).
    """
    forwards = [tree.pooled(examined, level) for level in range(len(tree.scales))]
    budget = share * dense if share < 1 else int(forwards[0].sum())
    asked = _asked(tree, need)
    levels, needs, costs, places = [], [], [], []
    for level in range(tree.top, 0, -1):
        rows, columns = np.nonzero(forwards[level])
        below = _children_with_data(tree, forwards[level - 1], level)
        levels.append(np.full(len(rows), level))
        needs.append(asked[level][rows, columns])
        costs.append(below[rows, columns] - 1)
        places.append(np.stack([rows, columns], 1))
    level_of, need_of, cost_of = np.concatenate(levels), np.concatenate(needs), np.concatenate(costs)
    # Parents before children where both ask for the same; then by place, so that one image has one plan.
    order = np.lexsort((np.arange(len(need_of)), -level_of, -need_of))
    spent = int(forwards[tree.top].sum()) + np.cumsum(cost_of[order])
    count = int(np.searchsorted(spent, budget, side="right"))
    split = [np.zeros(tree.grid(level), bool) for level in range(len(tree.scales))]
    place_of = np.concatenate(places)
    for index in order[:count].tolist():
        split[level_of[index]][tuple(place_of[index])] = True
    leaf = np.full(tree.grid(0), tree.top, np.int8)
    for level in range(tree.top, 0, -1):
        leaf[tree.spread(split[level], level) & (leaf == level)] = level - 1
    threshold = float(need_of[order[count - 1]]) if count else float("inf")
    return leaf, threshold


def _asked(tree: Tree, need: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The need of every node, at most that of the nodes above it: none is split before its parent."""
    asked = list(need)
    for level in range(tree.top - 1, 0, -1):
        ratio, (rows, columns) = tree.ratio(level + 1), tree.grid(level)
        above = asked[level + 1].repeat(ratio, 0).repeat(ratio, 1)[:rows, :columns]
        asked[level] = np.minimum(need[level], above)
    return asked


def _children_with_data(tree: Tree, below: NDArray[np.bool_], level: int) -> NDArray[np.int64]:
    ratio, (rows, columns) = tree.ratio(level), tree.grid(level)
    pad = ((0, rows * ratio - below.shape[0]), (0, columns * ratio - below.shape[1]))
    return np.asarray(np.pad(below, pad).reshape(rows, ratio, columns, ratio).sum(axis=(1, 3), dtype=np.int64))

"""Adaptive coverage in a job: the plan of a tree, the patches that it needs, and how they are read."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from model.cells import Distribution
from model.detail import planned_needs
from model.predictor import Predictor
from model.tree import Node, Tree, plan_leaves
from raster.geometry import Region
from raster.grid import Block
from raster.source import Plane
from raster.tissue import Tissue
from worker.batches import PatchReader, Shot, shots
from worker.job import Job
from worker.look import Thumbnail
from worker.plan import EXAMINED, NO_DATA, Plan, any_under

_TOGETHER = 16
"""Roots of a stretch, unless a batch has more: 42 MB of scores for five classes on patches of 512 pixels."""


class TreeReader(PatchReader):
    """Reads the patches of a tree's nodes: a shot's row and column are those of its level."""

    whole = True

    def __init__(self, job: Job, tree: Tree) -> None:
        super().__init__(job.source, job.grid, job.lattice, job.placement)
        self._tree = tree

    def plane(self, fov: int) -> Plane:
        """Its pixel (0, 0) is the first of the image; patches begin a margin before their squares."""
        scale = self._tree.scales[fov]
        return Plane((scale * self._grid.ratio[0], scale * self._grid.ratio[1]))

    def labels(self, shot: Shot) -> Region:
        return self._tree.window(node_of(shot))

    def _window(self, column: int, row: int, fov: int) -> Region:
        tree = self._tree
        return Region(column * tree.stride - tree.margin, row * tree.stride - tree.margin, tree.patch, tree.patch)

    def _corners(self, block: Block, fov: int) -> tuple[Region, Region]:
        ratio = self._tree.scales[-1] // self._tree.scales[fov]
        return (
            self._window(block.columns[0] * ratio, block.rows[0] * ratio, fov),
            self._window((block.columns[-1] + 1) * ratio - 1, (block.rows[-1] + 1) * ratio - 1, fov),
        )


def reader_of(job: Job) -> PatchReader:
    """What reads the patches of a job."""
    if job.tree is not None:
        return TreeReader(job, job.tree)
    return PatchReader(job.source, job.grid, job.lattice, job.placement)


def shots_of(job: Job, plan: Plan, block: Block) -> Iterator[Shot]:
    """The planned forwards of one block in the order of its cells, or of its leaves."""
    return shots(plan, block) if job.tree is None else tree_shots(job.tree, plan, block)


def make_tree_plan(
    job: Job, tree: Tree, predictor: Predictor, thumbnail: Thumbnail, tissue: Tissue | None,
    reason: NDArray[np.uint8], dense: int,
) -> tuple[Plan, float]:  # fmt: skip
    """The leaves of planned coverage and the threshold behind them; all roots, to begin with, for refined coverage.

    The budget is shared out over the whole image, whatever part of it is asked for, so that a part is the crop of the
    whole; what has data is therefore judged by the thumbnail. `tissue` and `reason` (cells) as in `worker.plan`;
    `dense` is the plan's.
    """
    leaf = np.full(tree.grid(0), tree.top, np.int8)
    threshold = float("inf")
    if job.coverage.kind == "planned":
        assert job.coverage.detail is not None
        seen = thumbnail.valid if tissue is None else tissue
        examined, dense_examined = (any_under(seen, lattice, thumbnail.step) for lattice in (tree.cells, tree.dense))
        steering = job.card.coverage.planning == "foveation" and predictor.foveation is not None
        wants = Distribution(predictor, thumbnail.values) if steering else None
        needs = planned_needs(tree, thumbnail.values, thumbnail.valid, thumbnail.step, wants)
        leaf, threshold = plan_leaves(tree, needs, examined, job.coverage.detail, int(dense_examined.sum()))
        reason = _without_far_leaves(tree, leaf, reason, job.placement.reach_w)
    return tree_plan(tree, leaf, reason, dense), threshold


def tree_plan(tree: Tree, leaf: NDArray[np.int8], reason: NDArray[np.uint8], dense: int) -> Plan:
    sides = np.array([tree.patch * scale for scale in tree.scales], np.float32)
    return Plan("tree", len(sides), reason, leaf, sides[leaf], None, dense)


def tree_shots(tree: Tree, plan: Plan, block: Block) -> Iterator[Shot]:
    """The leaves under the block's roots: root by root, and under each from coarse to fine."""
    examined = plan.reason == EXAMINED
    for row in block.rows:
        for column in block.columns:
            yield from (shot_of(node) for node in tree.leaves_under(Node(tree.top, row, column), plan.choice, examined))


def matters(tree: Tree, plan: Plan, reach_w: Region, node: Node) -> bool:
    """Whether the node has anything to examine, and whether its window meets what the mask is read from."""
    if tree.window(node).intersection(reach_w).empty:
        return False
    return bool((plan.reason[tree.cells_of(node)] == EXAMINED).any())


def _without_far_leaves(
    tree: Tree, leaf: NDArray[np.int8], reason: NDArray[np.uint8], reach_w: Region
) -> NDArray[np.uint8]:
    """`reason` with NO_DATA for the cells of leaves whose windows do not meet what the mask is read from."""
    kept = reason.copy()
    if reach_w.contains(Region.of(tree.size)):
        return kept
    for node in list(tree.leaves(leaf, reason == EXAMINED)):
        if tree.window(node).intersection(reach_w).empty:
            under = tree.cells_of(node)
            kept[under] = np.where(leaf[under] == node.level, NO_DATA, kept[under])
    return kept


def stretches(columns: range, batch: int) -> Iterator[range]:
    """The roots of a row in stretches whose scores are held, and kept, together: memory does not follow the width."""
    together = max(_TOGETHER, batch)
    for first in range(columns.start, columns.stop, together):
        yield range(first, min(first + together, columns.stop))


def shot_of(node: Node) -> Shot:
    return Shot(node.row, node.column, (node.level,), (1.0,), 1.0)


def node_of(shot: Shot) -> Node:
    return Node(shot.fovs[0], shot.row, shot.column)

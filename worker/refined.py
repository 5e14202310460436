"""Refined coverage: a coarse pass over the whole image, a preview of the mask, then refinement block by block.

The coarse pass leaves the roots' scores in the canvas, so that no block runs them again. Which nodes are looked at
closer is decided while the blocks are computed, and stands with each block in the canvas.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import product
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from model.accumulator import Accumulator
from model.device import Landing
from model.lanes import Lanes, ahead
from model.predictor import Predictor, Scores
from model.refine import mark, refined
from model.tree import Node, Tree
from raster.geometry import Region
from raster.grid import Block
from worker.batches import Shot, in_groups
from worker.canvas import BlockRecord, Canvas, RootScores
from worker.commits import ForwardedBlock
from worker.compute import AHEAD, BlockWork, Computed, Patches
from worker.job import Job, threads
from worker.plan import Plan
from worker.preview import write_preview
from worker.trees import matters, shot_of, stretches, tree_plan

_COARSE = 0.1
"""Share of the progress that the coarse pass stands for."""

_Root = tuple[Node, NDArray[np.float16]]
"""A root, and its scores (K, P, P)."""


@dataclass(frozen=True, eq=False)
class _Found:
    """What became of a block: its open sums (None: there was nothing to add), the nodes that were forwarded, parents
    first, and the damage that was met."""

    sums: Accumulator | None
    forwarded: list[Node]
    damaged: frozenset[Region]


class RefinedWork(BlockWork):
    """Computes a job's blocks top down. Changes over time: also the leaves that it has decided on."""

    def __init__(
        self, job: Job, tree: Tree, plan: Plan, canvas: Canvas, predictor: Predictor, known_damage: frozenset[Region]
    ) -> None:
        super().__init__(job, plan, canvas, predictor, known_damage)
        self._tree = tree
        self._leaf = plan.choice.copy()
        self._at_hand: tuple[Node | None, dict[Node, NDArray[np.float16]]] = (None, {})
        self._previewed, self._roots_decoded = 0.0, 0

    def _computed(self) -> Computed:
        plan, found = tree_plan(self._tree, self._leaf, self._plan.reason, self._plan.dense), super()._computed()
        decoded = found.pixels_decoded + self._roots_decoded
        return replace(found, plan=plan, previewed=self._previewed, pixels_decoded=decoded)

    def _take_up(self, block: Block, record: BlockRecord) -> None:
        assert record.leaf is not None, "refined coverage keeps every block's leaves"
        self._leaf[self._cells(block)] = record.leaf

    def _blocks(self, readers: Executor, lanes: Lanes, pulse: Callable[[float], None]) -> Iterator[ForwardedBlock]:
        self._coarse_pass(readers, lanes, pulse)
        write_preview(self._job, self._tree, self._plan, self._canvas, lambda: pulse(_COARSE))
        self._previewed = time.perf_counter()
        pulse(_COARSE)
        lock, blocks = Lock(), self._job.placement.blocks

        def step() -> None:
            with lock:
                pulse(_COARSE + (1 - _COARSE) * len(self._commits.done) / len(blocks))

        todo = ((block, list(self._roots(block))) for block in blocks if block not in self._commits.done)
        most = self._job.budget.at_once
        for (block, _), found in lanes.as_completed(lambda task: self._refined(*task, readers, step), todo, most):
            self._note_damage(found.damaged)
            for node in found.forwarded:
                mark(self._tree, self._leaf, node)
            yield ForwardedBlock(block, found.sums, found.damaged, self._leaf[self._cells(block)].copy())
            step()  # also where there is nothing to forward

    def _coarse_pass(self, readers: Executor, lanes: Lanes, pulse: Callable[[float], None]) -> None:
        """Forward the roots that the canvas lacks, and commit them stretch by stretch."""
        rows, columns = self._job.placement.cells
        for row, part in product(rows, stretches(columns)):
            first, done = Node(self._tree.top, row, part.start), _COARSE * (row - rows[0]) / len(rows)
            pulse(done)
            found = self._canvas.roots(first)
            if found is None:
                found = self._coarse(row, part, readers, lanes, lambda done=done: pulse(done))  # type: ignore[misc]
                self._canvas.commit_roots(first, found)
            self._note_damage(found.damaged)
            self._roots_decoded += found.pixels_decoded
        # Before any row is handed on: damage that became known later would have all rows written again.
        self._commits.damaged |= self._all_damaged

    def _coarse(
        self, row: int, columns: range, readers: Executor, lanes: Lanes, pulse: Callable[[], None]
    ) -> RootScores:
        roots = [root for column in columns if self._matters(root := Node(self._tree.top, row, column))]
        card = self._job.card
        scores = np.empty((len(roots), len(card.classes), card.patch_size, card.patch_size), np.float16)
        damaged: set[Region] = set()
        everywhere = Region(0, 0, 0, 0)
        batch, done = self._job.batch, 0
        coming: deque[tuple[int, Landing]] = deque()

        def land(leaving: int) -> None:
            while len(coming) > leaving:
                first, landing = coming.popleft()
                found = landing.arrays()["scores"]
                scores[first : first + len(found)] = found

        def forward(read: tuple[list[Shot], Patches]) -> Landing:
            return self._predictor.ferry.down({"scores": self._predictor.scores(read[1][0]).half()})

        tasks = in_groups(map(shot_of, roots), batch)
        reading = ahead(
            tasks, lambda group: self._reader.read_loose(everywhere, group, batch), readers, AHEAD * threads()
        )
        for (group, (_, found)), landing in lanes.map(forward, reading):
            damaged |= found
            coming.append((done, landing))
            done += len(group)
            land(leaving=1)
            pulse()
        land(leaving=0)
        decoded = self._job.source.take_pixels_decoded()
        return RootScores(np.array([root.column for root in roots], np.int64), scores, frozenset(damaged), decoded)

    def _refined(self, block: Block, roots: Sequence[_Root], readers: Executor, step: Callable[[], None]) -> _Found:
        """What becomes of a block's roots; for several threads at once."""
        batch, damaged = self._job.batch, set[Region]()
        corner = self._job.placement.support(block)
        sums: Accumulator | None = None

        def forward(nodes: Sequence[Node]) -> Iterator[Scores]:
            tasks = in_groups(map(shot_of, nodes), batch)
            reading = ahead(tasks, lambda group: self._reader.read(block, group, batch), readers, AHEAD * threads())
            for _, (patches, found) in reading:
                damaged.update(found)
                yield from self._predictor.scores(patches)
                step()

        def keep(node: Node, scores: Scores) -> None:
            nonlocal sums
            sums = self._open(block) if sums is None else sums
            window = self._tree.window(node)
            self._predictor.add_enlarged(sums, scores, window.x - corner.x, window.y - corner.y, node.level)

        threshold = self._job.coverage.threshold
        assert threshold is not None, "refined coverage has a threshold"
        there = [(node, self._predictor.ferry.up(scores)[0].float()) for node, scores in roots]
        with self._reader.on(block):
            forwarded = refined(self._tree, threshold, there, forward, keep, matters=self._examined)
        return _Found(sums, forwarded, frozenset(damaged))

    def _roots(self, block: Block) -> Iterator[_Root]:
        _, columns = self._job.placement.cells
        for row, column in product(block.rows, block.columns):
            part = next(part for part in stretches(columns) if column in part)
            root = Node(self._tree.top, row, column)
            scores = self._scores_from(replace(root, column=part.start)).get(root)
            if scores is not None:
                yield root, scores

    def _scores_from(self, first: Node) -> dict[Node, NDArray[np.float16]]:
        """Of the stretch of roots from `first` on, which is kept at hand until another is asked for."""
        if self._at_hand[0] != first:
            found = self._canvas.roots(first)
            assert found is not None, "the coarse pass has committed every stretch"
            nodes = [Node(first.level, first.row, column) for column in found.columns.tolist()]
            self._at_hand = first, dict(zip(nodes, found.scores, strict=True))
        return self._at_hand[1]

    def _cells(self, block: Block) -> tuple[slice, slice]:
        top = self._tree.top
        first = self._tree.cells_of(Node(top, block.rows[0], block.columns[0]))
        last = self._tree.cells_of(Node(top, block.rows[-1], block.columns[-1]))
        return slice(first[0].start, last[0].stop), slice(first[1].start, last[1].stop)

    def _examined(self, node: Node) -> bool:
        """Whether it has anything to examine: under a root of the region of interest all children have a say in what is
        learnt there, so that a part is the crop of the whole."""
        return matters(self._tree, self._plan, Region.of(self._tree.size), node)

    def _matters(self, node: Node) -> bool:
        return matters(self._tree, self._plan, self._job.roi_w, node)

"""Refined coverage: a coarse pass over the whole image, a preview of the mask, then refinement block by block.

The coarse pass leaves the roots' scores in the canvas, so that no block runs them again. Which nodes are looked at
closer is decided while the blocks are computed, and stands with each block in the canvas.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from threading import Lock

from model.accumulator import BlockSums
from model.lanes import Lanes, ahead
from model.predictor import Predictor, Scores
from model.refine import mark, refined
from model.tree import Node, Tree
from raster.geometry import Region
from raster.grid import Block
from worker.batches import in_groups
from worker.canvas import BlockRecord, Canvas
from worker.coarse import CoarsePass, Root
from worker.commits import ForwardedBlock
from worker.compute import AHEAD, BlockWork, Computed
from worker.job import Job, threads
from worker.plan import Plan
from worker.preview import write_preview
from worker.trees import matters, shot_of, tree_plan

_COARSE = 0.1
"""Share of the progress that the coarse pass stands for."""


@dataclass(frozen=True, eq=False)
class _Found:
    """What became of a block: open sums, the nodes that were forwarded, parents first, and the damage that was met."""

    sums: BlockSums
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
        self._coarse = CoarsePass(job, tree, plan, canvas, predictor, self._reader)
        self._previewed = 0.0

    def _computed(self) -> Computed:
        plan, found = tree_plan(self._tree, self._leaf, self._plan.reason, self._plan.dense), super()._computed()
        decoded = found.pixels_decoded + self._coarse.pixels_decoded
        return replace(found, plan=plan, previewed=self._previewed, pixels_decoded=decoded)

    def _take_up(self, block: Block, record: BlockRecord) -> None:
        assert record.leaf is not None, "refined coverage keeps every block's leaves"
        self._leaf[self._cells(block)] = record.leaf

    def _blocks(self, readers: Executor, lanes: Lanes, pulse: Callable[[float], None]) -> Iterator[ForwardedBlock]:
        self._coarse.run(readers, lanes, self._note_damage, lambda share: pulse(_COARSE * share))
        # Before any row is handed on: damage that became known later would have all rows written again.
        self._commits.damaged |= self._all_damaged
        write_preview(self._job, self._tree, self._plan, self._canvas, lambda: pulse(_COARSE))
        self._previewed = time.perf_counter()
        pulse(_COARSE)
        lock, blocks = Lock(), self._job.placement.blocks

        def step() -> None:
            with lock:
                pulse(_COARSE + (1 - _COARSE) * len(self._commits.done) / len(blocks))

        todo = ((block, list(self._coarse.roots(block))) for block in blocks if block not in self._commits.done)
        most = self._job.budget.at_once
        for (block, _), found in lanes.as_completed(lambda task: self._refined(*task, readers, step), todo, most):
            self._note_damage(found.damaged)
            for node in found.forwarded:
                mark(self._tree, self._leaf, node)
            yield ForwardedBlock(block, found.sums.by_scale, found.damaged, self._leaf[self._cells(block)].copy())
            step()  # also where there is nothing to forward

    def _refined(self, block: Block, roots: Sequence[Root], readers: Executor, step: Callable[[], None]) -> _Found:
        """What becomes of a block's roots; for several threads at once."""
        batch, damaged = self._job.batch, set[Region]()
        corner, sums = self._job.placement.support(block), self._open(block)

        def forward(nodes: Sequence[Node]) -> Iterator[Scores]:
            tasks = in_groups(map(shot_of, nodes), batch)
            reading = ahead(tasks, lambda group: self._reader.read(block, group, batch), readers, AHEAD * threads())
            for _, (patches, found) in reading:
                damaged.update(found)
                yield from self._predictor.scores(patches)
                step()

        def keep(node: Node, scores: Scores, level: int) -> None:
            window = self._tree.window(node)
            self._predictor.add_whole(sums, scores, window.x - corner.x, window.y - corner.y, level)

        threshold = self._job.coverage.threshold
        assert threshold is not None, "refined coverage has a threshold"
        there = [(node, self._predictor.ferry.up(scores)[0].float()) for node, scores in roots]
        with self._reader.on(block):
            forwarded = refined(self._tree, threshold, there, forward, keep, matters=self._examined)
        return _Found(sums, forwarded, frozenset(damaged))

    def _cells(self, block: Block) -> tuple[slice, slice]:
        top = self._tree.top
        first = self._tree.cells_of(Node(top, block.rows[0], block.columns[0]))
        last = self._tree.cells_of(Node(top, block.rows[-1], block.columns[-1]))
        return slice(first[0].start, last[0].stop), slice(first[1].start, last[1].stop)

    def _examined(self, node: Node) -> bool:
        """Whether it has anything to examine: under a root of the region of interest all children have a say in what is
        learnt there, so that a part is the crop of the whole."""
        return matters(self._tree, self._plan, Region.of(self._tree.size), node)

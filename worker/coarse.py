"""The coarse pass of refined coverage: every root is forwarded once, and its scores are kept in the canvas.

Roots are kept stretch by stretch of a row, so that a job that is taken up again forwards none that it has.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from model.device import Landing
from model.lanes import Lanes, ahead
from model.predictor import Predictor
from model.tree import Node, Tree
from raster.geometry import Region
from raster.grid import Block
from worker.batches import PatchReader, Shot, in_groups
from worker.canvas import Canvas, RootScores
from worker.compute import AHEAD, Patches
from worker.job import Job, threads
from worker.plan import Plan
from worker.trees import matters, shot_of, stretches

Root = tuple[Node, NDArray[np.float16]]
"""A root, and its scores (K, P, P)."""


class _Stretch:
    """The scores of one stretch of a row of roots, as they come in."""

    def __init__(self, first: Node, roots: list[Node], shape: tuple[int, int, int]) -> None:
        """`shape` is that of a root's scores, (K, P, P)."""
        self.first = first
        self._roots, self._shape = roots, shape
        self._damaged: set[Region] = set()
        self._coming: deque[Landing] = deque()
        self._there = 0

    def take(self, landing: Landing, damaged: frozenset[Region]) -> None:
        """The scores of the next roots; those of the batch before have landed meanwhile."""
        self._damaged |= damaged
        self._coming.append(landing)
        self._land(leaving=1)

    def finished(self, pixels_decoded: int) -> RootScores:
        """Once all scores have been taken."""
        self._land(leaving=0)
        assert self._there == len(self._roots), "every root of a stretch is forwarded"
        columns = np.array([root.column for root in self._roots], np.int64)
        return RootScores(columns, self._scores, frozenset(self._damaged), pixels_decoded)

    @cached_property
    def _scores(self) -> NDArray[np.float16]:
        """(n, K, P, P), made when the first of them lands: stretches are laid out well ahead."""
        return np.empty((len(self._roots), *self._shape), np.float16)

    def _land(self, leaving: int) -> None:
        while len(self._coming) > leaving:
            found = self._coming.popleft().arrays()["scores"]
            self._scores[self._there : self._there + len(found)] = found
            self._there += len(found)


@dataclass(frozen=True)
class _Task:
    """One batch of a stretch of roots; a stretch without roots has one task without shots."""

    stretch: _Stretch
    group: list[Shot]
    last: bool


class CoarsePass:
    """The roots of one job. Changes over time: what was decoded, how many stretches are done, and the one at hand."""

    def __init__(
        self, job: Job, tree: Tree, plan: Plan, canvas: Canvas, predictor: Predictor, reader: PatchReader
    ) -> None:
        self._job, self._tree, self._plan = job, tree, plan
        self._canvas, self._predictor, self._reader = canvas, predictor, reader
        rows, columns = job.placement.cells
        self._parts = list(stretches(columns, job.batch))
        self._stretches = list(product(rows, self._parts))
        self._at_hand: tuple[Node | None, dict[Node, NDArray[np.float16]]] = (None, {})
        self._done = 0
        self.pixels_decoded = 0

    def run(
        self,
        readers: Executor,
        lanes: Lanes,
        note_damage: Callable[[frozenset[Region]], None],
        pulse: Callable[[float], None],
    ) -> None:
        """Forward the roots that the canvas lacks, and commit them stretch by stretch.

        `note_damage` hears of every stretch, `pulse` with every batch of the share of the pass that is done; both may
        raise to stop.
        """

        def done(found: RootScores) -> None:
            note_damage(found.damaged)
            self.pixels_decoded += found.pixels_decoded
            self._done += 1

        def told() -> None:
            pulse(self._done / len(self._stretches))

        reading = ahead(self._tasks(done, told), self._read, readers, AHEAD * threads())
        for (task, patches), landing in lanes.map(self._forward, reading):
            if patches is not None and landing is not None:
                task.stretch.take(landing, patches[1])
            if task.last:
                done(self._committed(task.stretch))
            told()

    def roots(self, block: Block) -> Iterator[Root]:
        """Those of a block, once all have run."""
        for row, column in product(block.rows, block.columns):
            part = next(part for part in self._parts if column in part)
            root = Node(self._tree.top, row, column)
            scores = self._scores_from(replace(root, column=part.start)).get(root)
            if scores is not None:
                yield root, scores

    def _tasks(self, done: Callable[[RootScores], None], told: Callable[[], None]) -> Iterator[_Task]:
        """Of the stretches that the canvas lacks; those that it has are `done`."""
        card = self._job.card
        shape = len(card.classes), card.patch_size, card.patch_size
        for row, part in self._stretches:
            first = Node(self._tree.top, row, part.start)
            found = self._canvas.roots(first)
            if found is not None:
                done(found)
                told()
                continue
            roots = [root for column in part if self._matters(root := Node(self._tree.top, row, column))]
            stretch = _Stretch(first, roots, shape)
            groups = list(in_groups(map(shot_of, roots), self._job.batch)) or [[]]
            for index, group in enumerate(groups):
                yield _Task(stretch, group, index == len(groups) - 1)

    def _matters(self, node: Node) -> bool:
        return matters(self._tree, self._plan, self._job.placement.reach_w, node)

    def _read(self, task: _Task) -> Patches | None:
        corner = Region(0, 0, 0, 0)  # of no block: where scores go is decided when they are refined
        return self._reader.read_loose(corner, task.group, self._job.batch) if task.group else None

    def _forward(self, read: tuple[_Task, Patches | None]) -> Landing | None:
        _, patches = read
        if patches is None:
            return None
        return self._predictor.ferry.down({"scores": self._predictor.scores(patches[0]).half()})

    def _committed(self, stretch: _Stretch) -> RootScores:
        found = stretch.finished(self._job.source.take_pixels_decoded())
        self._canvas.commit_roots(stretch.first, found)
        return found

    def _scores_from(self, first: Node) -> dict[Node, NDArray[np.float16]]:
        """Of the stretch of roots from `first` on, which is kept at hand until another is asked for."""
        if self._at_hand[0] != first:
            found = self._canvas.roots(first)
            assert found is not None, "the coarse pass has committed every stretch"
            nodes = [Node(first.level, first.row, column) for column in found.columns.tolist()]
            self._at_hand = first, dict(zip(nodes, found.scores, strict=True))
        return self._at_hand[1]

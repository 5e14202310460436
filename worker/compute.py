"""From plan to committed labels: block by block, each patch once, committed while the next block is computed."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from model.accumulator import Accumulator, BlockSums
from model.lanes import Lanes, ahead
from model.predictor import PatchBatch, Predictor, Scores
from raster.geometry import Region, Size
from raster.grid import Block
from raster.source import check_damage
from worker.batches import Shot, in_groups
from worker.canvas import BlockRecord, Canvas, Tally
from worker.commits import Commits, ForwardedBlock
from worker.job import COMMITTED_AT_ONCE, Job, threads
from worker.plan import Plan
from worker.trees import reader_of, shots_of

AHEAD = 3
"""Batches that are read or held ahead of the network, a thread."""


Patches = tuple[PatchBatch, frozenset[Region]]
"""Patches, and the level-0 regions of damage that reading them met."""


@dataclass(frozen=True)
class _Task:
    """One batch of one block; a block without patches has one task without shots."""

    block: Block
    group: list[Shot]
    last: bool


@dataclass(frozen=True)
class Computed:
    """What all blocks together came to. `damaged`: level-0 regions that no mask pixel may touch."""

    tally: Tally
    damaged: frozenset[Region]
    pixels_decoded: int
    plan: Plan
    """With what was decided on the way."""
    threshold: float | None = None
    """Of adaptive coverage."""
    previewed: float | None = None
    """When the preview of refined coverage was there, on `time.perf_counter`'s clock."""


class BlockWork:
    """Computes the blocks of one job that its canvas lacks.

    Changes over time: the sums of the block at hand, in the caller's thread (under refined coverage those of several
    blocks, in as many lanes), and in another what is committed.
    """

    def __init__(
        self, job: Job, plan: Plan, canvas: Canvas, predictor: Predictor, known_damage: frozenset[Region]
    ) -> None:
        self._job = job
        self._plan = plan
        self._canvas = canvas
        self._predictor = predictor
        self._reader = reader_of(job)
        self._commits = Commits(job, plan, canvas, predictor.ferry, job.known_damage | known_damage)
        self._sums: BlockSums | None = None
        self._spent: dict[int, deque[Accumulator]] = {scale: deque() for scale in job.scales}
        """By scale, sums of blocks that are committed: their memory serves for those that follow."""
        self._damaged: set[Region] = set()
        self._all_damaged: frozenset[Region] = frozenset()

    def run(
        self,
        pulse: Callable[[float], None],
        hand_on: Callable[[int, frozenset[Region]], None],
    ) -> Computed:
        """Compute, commit and close all that is missing. `pulse` gets the share that is done with every batch, and may
        raise to stop.

        `hand_on` is told of every row of blocks, in order, once it and all before it are committed and their seams are
        closed: with the row, and the damage that is known by then. It is called in the thread that commits: the network
        does not wait for what was computed to be kept.
        """

        def commit(forwarded: ForwardedBlock) -> None:
            commits.commit(forwarded)
            for scale, sums in forwarded.sums.items():
                self._spent[scale].append(sums)
            commits.hand_on(hand_on)

        commits = self._commits
        commits.take_up(self._take_up, lambda: pulse(0.0))
        self._all_damaged = commits.damaged
        commits.hand_on(hand_on)
        with (
            ThreadPoolExecutor(threads(), "read") as readers,
            ThreadPoolExecutor(1, "commit", commits.move_here) as committer,
            Lanes(self._predictor.device) as lanes,
        ):
            for _ in ahead(self._blocks(readers, lanes, pulse), commit, committer, COMMITTED_AT_ONCE):
                pass
        self._spent = {}
        return self._computed()

    def _computed(self) -> Computed:
        return Computed(self._commits.tally, self._all_damaged, self._commits.pixels_decoded, self._plan)

    def _take_up(self, block: Block, record: BlockRecord) -> None:
        """The block was committed by an earlier attempt."""

    def _blocks(self, readers: Executor, lanes: Lanes, pulse: Callable[[float], None]) -> Iterator[ForwardedBlock]:
        """The blocks that are missing, computed; `pulse` is called every batch."""
        total = max(1, sum(1 for block in self._job.placement.blocks for _ in shots_of(self._job, self._plan, block)))
        ready = sum(1 for block in self._commits.done for _ in shots_of(self._job, self._plan, block))
        reading = ahead(self._tasks(), self._read, readers, AHEAD * threads())
        for (task, patches), scores in lanes.map(self._forward, reading):
            if patches is not None and scores is not None:
                self._take(task.block, *patches, scores)
            if task.last:
                yield self._forwarded(task.block)
            ready += len(task.group)
            pulse(ready / total)

    def _tasks(self) -> Iterator[_Task]:
        for block in self._job.placement.blocks:
            if block in self._commits.done:
                continue
            found = list(in_groups(shots_of(self._job, self._plan, block), self._job.batch)) or [[]]
            for index, group in enumerate(found):
                yield _Task(block, group, index == len(found) - 1)

    def _read(self, task: _Task) -> Patches | None:
        return self._reader.read(task.block, task.group, self._job.batch) if task.group else None

    def _forward(self, read: tuple[_Task, Patches | None]) -> Scores | None:
        _, patches = read
        return None if patches is None else self._predictor.scores(patches[0])

    def _take(self, block: Block, batch: PatchBatch, damaged: frozenset[Region], scores: Scores) -> None:
        self._note_damage(damaged)
        self._damaged |= damaged
        if self._sums is None:
            self._sums = self._open(block)
        self._predictor.add(self._sums, batch, scores)

    def _open(self, block: Block) -> BlockSums:
        """Empty sums for the block; for several threads at once."""
        return BlockSums(lambda scale: self._opened(self._job.placement.support(block, scale).size, scale))

    def _opened(self, size: Size, scale: int) -> Accumulator:
        try:
            sums = self._spent[scale].pop().emptied(size)
        except IndexError:
            sums = None
        return self._predictor.open_block(size, self._job.overlap_px) if sums is None else sums

    def _note_damage(self, damaged: frozenset[Region]) -> None:
        if not damaged <= self._all_damaged:
            self._all_damaged = self._all_damaged | damaged
            check_damage(sorted(self._all_damaged), self._job.info, "the file is damaged or cut short")

    def _forwarded(self, block: Block) -> ForwardedBlock:
        sums = {} if self._sums is None else self._sums.by_scale
        forwarded = ForwardedBlock(block, sums, frozenset(self._damaged))
        self._sums, self._damaged = None, set()
        return forwarded

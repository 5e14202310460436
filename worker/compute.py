"""From plan to committed labels: block by block, each patch once, seams closed as soon as their blocks are there."""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.errors import CoverageHole, Dismissed
from foveate.schema import NODATA
from model.accumulator import LABELS, PROBABILITIES, UNCERTAINTY, Accumulator, Layers, OpenSums, Taps, finish
from model.device import Landing
from model.lanes import Lanes, ahead
from model.predictor import PatchBatch, Predictor, Scores
from raster.geometry import Region
from raster.grid import Block
from raster.source import check_damage
from worker.batches import PatchReader, Shot, in_groups, shots
from worker.canvas import BlockRecord, Canvas, Tally
from worker.job import Job, threads
from worker.placement import Piece
from worker.plan import BACKGROUND, EXAMINED, Plan
from worker.trees import TreeReader, tree_shots

AHEAD = 3
"""Batches that are read or held ahead of the network, a thread."""
_LEFT = 2
"""Blocks that are being committed, or wait for it, at most while the next one is computed."""


Patches = tuple[PatchBatch, frozenset[Region]]
"""Patches, and the level-0 regions of damage that reading them met."""


@dataclass(frozen=True)
class _Task:
    """One batch of one block; a block without patches has one task without shots."""

    block: Block
    group: list[Shot]
    last: bool


@dataclass(frozen=True)
class _Finishing:
    """Layers of a piece on their way from the device; None: nobody examined any of it."""

    piece: Piece
    landing: Landing | None
    with_data: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Left:
    """A block whose patches are all forwarded: its open sums (None: it has none), and the damage that it met."""

    block: Block
    sums: Accumulator | None
    damaged: frozenset[Region]


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

    Changes over time: the sums of the block at hand, in the caller's thread; what is done, in the one that commits.
    """

    def __init__(
        self, job: Job, plan: Plan, canvas: Canvas, predictor: Predictor, known_damage: frozenset[Region]
    ) -> None:
        self._job = job
        self._plan = plan
        self._canvas = canvas
        self._predictor = predictor
        self._reader = (
            PatchReader(job.source, job.grid, job.lattice, job.placement)
            if job.tree is None
            else TreeReader(job, job.tree)
        )
        self._values = np.array([card.value for card in job.card.classes], np.uint8)
        self._extras = tuple(sorted(set(job.options.outputs)))
        self._sums: Accumulator | None = None
        self._ferry = predictor.ferry
        self._damaged: set[Region] = set()
        self._all_damaged: set[Region] = set(job.known_damage | known_damage)
        self._tally, self._decoded = Tally(), 0
        self._done: set[Block] = set()
        self._closed: set[str] = set()
        self._rows_done = 0
        self._take_up()

    def run(
        self,
        report: Callable[[float], None],
        dismissed: Callable[[], bool],
        hand_on: Callable[[int, frozenset[Region]], None],
    ) -> Computed:
        """Compute, commit and close all that is missing. `report` gets the share that is done; raises Dismissed.

        `hand_on` is told of every row of blocks, in order, once it and all before it are committed and their seams are
        closed: with the row, and the damage that is known by then. It is called in the thread that commits: the network
        does not wait for what was computed to be kept.
        """

        def pulse(share: float) -> None:
            if dismissed():
                raise Dismissed("the job was cancelled", hint="submit it again if that was a mistake")
            report(share)

        def begin() -> None:
            self._ferry = self._predictor.ferry.another()

        def commit(left: Left) -> None:
            self._commit(left)
            self._hand_on(hand_on)

        self._hand_on(hand_on)
        with (
            ThreadPoolExecutor(threads(), "read") as readers,
            ThreadPoolExecutor(1, "commit", begin) as committer,
            Lanes(self._predictor.device) as lanes,
        ):
            for _ in ahead(self._blocks(readers, lanes, pulse), commit, committer, _LEFT):
                pass
        return self._computed()

    def _computed(self) -> Computed:
        return Computed(self._tally, frozenset(self._all_damaged), self._decoded, self._plan)

    def _blocks(self, readers: Executor, lanes: Lanes, pulse: Callable[[float], None]) -> Iterator[Left]:
        """The blocks that are missing, computed; `pulse` is called every batch."""
        total = max(1, sum(1 for block in self._job.placement.blocks for _ in self._shots(block)))
        ready = sum(1 for block in self._done for _ in self._shots(block))
        reading = ahead(self._tasks(), self._read, readers, AHEAD * threads())
        for (task, patches), scores in lanes.map(self._forward, reading):
            if patches is not None and scores is not None:
                self._take(task.block, *patches, scores)
            if task.last:
                yield self._leave(task.block)
            ready += len(task.group)
            pulse(ready / total)

    def _shots(self, block: Block) -> Iterator[Shot]:
        tree = self._job.tree
        return shots(self._plan, block) if tree is None else tree_shots(tree, self._plan, block)

    def _take_up(self) -> None:
        """What the canvas holds already; seams that were cut off before they closed are closed."""
        for block in self._job.placement.blocks:
            record = self._canvas.block(block)
            if record is not None:
                self._done.add(block)
                self._count(record.tally, record.pixels_decoded)
                self._all_damaged |= record.damaged
        for piece in self._job.placement.pieces():
            seam = self._canvas.seam(piece) if len(piece.owners) > 1 else None
            if seam is not None:
                self._closed.add(piece.name)
                self._count(seam[1])
        for block in sorted(self._done, key=lambda block: (block.row, block.column)):
            self._close_seams(block)

    def _hand_on(self, hand_on: Callable[[int, frozenset[Region]], None]) -> None:
        blocks = self._job.placement.blocks
        columns = range(len(blocks.column_spans))
        while self._rows_done < len(blocks.row_spans):
            if not all(blocks.at(self._rows_done, column) in self._done for column in columns):
                return
            hand_on(self._rows_done, frozenset(self._all_damaged))
            self._rows_done += 1

    def _count(self, tally: Tally, decoded: int = 0) -> None:
        self._tally, self._decoded = self._tally + tally, self._decoded + decoded

    def _tasks(self) -> Iterator[_Task]:
        for block in self._job.placement.blocks:
            if block in self._done:
                continue
            found = list(in_groups(self._shots(block), self._job.batch)) or [[]]
            for index, group in enumerate(found):
                yield _Task(block, group, index == len(found) - 1)

    def _read(self, task: _Task) -> Patches | None:
        return self._reader.read(task.block, task.group, self._job.batch) if task.group else None

    def _forward(self, read: tuple[_Task, Patches | None]) -> Scores | None:
        _, patches = read
        return None if patches is None else self._predictor.scores(patches[0])

    def _take(self, block: Block, batch: PatchBatch, damaged: frozenset[Region], scores: Scores) -> None:
        self._note_damage(damaged)
        if self._sums is None:
            self._sums = self._open(block)
        self._predictor.add(self._sums, batch, scores)

    def _open(self, block: Block) -> Accumulator:
        return self._predictor.open_block(self._job.placement.support(block).size, self._job.overlap_px)

    def _note_damage(self, damaged: frozenset[Region]) -> None:
        self._damaged |= damaged
        if not damaged <= self._all_damaged:
            self._all_damaged = self._all_damaged | damaged
            check_damage(sorted(self._all_damaged), self._job.info, "see the warnings")

    def _leave(self, block: Block) -> Left:
        left = Left(block, self._sums, frozenset(self._damaged))
        self._sums, self._damaged = None, set()
        return left

    # --- in the thread that commits ---------------------------------------------------------------------------------

    def _commit(self, left: Left) -> None:
        """What the block came to: its own labels, and its share of the seams around it; then seams that waited for it.

        Everything goes down from the device before anything is waited for.
        """
        block, corner = left.block, self._job.placement.support(left.block)
        own: list[_Finishing] = []
        shared: dict[str, Landing] = {}
        for piece in self._job.placement.pieces_of(block):
            part = self._job.placement.region_w(piece).intersection(corner)
            open_sums = None if left.sums is None else left.sums.there(part.shifted(-corner.x, -corner.y))
            if len(piece.owners) == 1:
                own.append(self._finishing(piece, open_sums))
            elif open_sums is not None:
                shared[piece.name] = self._ferry.down({piece.name: open_sums})
        pieces: dict[str, Layers] = {}
        tally = Tally()
        for finishing in own:
            pieces[finishing.piece.name], counted = self._checked(finishing)
            tally += counted
        sums = {name: landing.arrays()[name] for name, landing in shared.items()}
        decoded = self._job.source.take_pixels_decoded()
        self._canvas.commit_block(block, BlockRecord(pieces, left.damaged, tally, decoded, self._leaf_of(block)), sums)
        self._count(tally, decoded)
        self._done.add(block)
        self._close_seams(block)

    def _leaf_of(self, block: Block) -> NDArray[np.int8] | None:
        """What was decided about the block while it was computed; None: nothing was."""
        return None

    def _close_seams(self, block: Block) -> None:
        placement = self._job.placement
        for piece in placement.pieces_of(block):
            owners = [placement.blocks.at(*owner) for owner in piece.owners]
            ready = len(owners) > 1 and all(owner in self._done for owner in owners)
            if ready and piece.name not in self._closed:
                layers, tally = self._checked(self._finishing(piece, self._added(piece, owners)))
                self._canvas.commit_seam(piece, layers, tally)
                self._count(tally)
                self._closed.add(piece.name)
        for neighbour in self._around(block):
            if all(len(piece.owners) == 1 or piece.name in self._closed for piece in placement.pieces_of(neighbour)):
                self._canvas.drop_sums(neighbour)

    def _around(self, block: Block) -> Iterator[Block]:
        blocks = self._job.placement.blocks
        for row in range(max(0, block.row - 1), min(block.row + 2, len(blocks.row_spans))):
            for column in range(max(0, block.column - 1), min(block.column + 2, len(blocks.column_spans))):
                yield blocks.at(row, column)

    def _added(self, piece: Piece, owners: list[Block]) -> NDArray[np.float32] | None:
        """The owners' sums over the seam, added in lattice order; None: nobody examined anything there."""
        placement = self._job.placement
        region = placement.region_w(piece)
        total: NDArray[np.float32] | None = None
        for owner in owners:
            sums = self._canvas.sums(owner, piece.name)
            if sums is None:
                continue
            if total is None:
                total = np.zeros((sums.shape[0], *region.size.shape), np.float32)
            rows, columns = region.intersection(placement.support(owner)).slices(region.x, region.y)
            total[:, rows, columns] += sums
        return total

    def _finishing(self, piece: Piece, sums: OpenSums | None) -> _Finishing:
        """The layers of a piece from the sums over its working region."""
        job, placement = self._job, self._job.placement
        valid = job.source.read_valid(placement.piece_l0(piece))
        landing = None
        if sums is not None:
            region = placement.region_w(piece)
            layers = finish(
                sums,
                _shifted(placement.y.taps(piece.rows.start_m, piece.rows.end_m), region.y),
                _shifted(placement.x.taps(piece.columns.start_m, piece.columns.end_m), region.x),
                valid=valid,
                downsample=placement.x.downsample,
                values=self._values,
                nodata=NODATA,
                ferry=self._ferry,
                extras=self._extras,
                shown=self._shown(region),
            )
            landing = self._ferry.down(layers)
        return _Finishing(piece, landing, _any_in_squares(valid, placement.x.downsample))

    def _checked(self, finishing: _Finishing) -> tuple[Layers, Tally]:
        """The layers of a piece once they are here, without holes, and their tally."""
        piece, with_data = finishing.piece, finishing.with_data
        if finishing.landing is None:
            layers = _nothing(piece.region_m.size.shape, len(self._values), self._extras)
        else:
            layers = finishing.landing.arrays()
        labels = layers[LABELS]
        unexamined = (labels == NODATA) if with_data is None else (labels == NODATA) & with_data
        missing = int(np.count_nonzero(unexamined))
        if missing and not self._background(piece)[unexamined].all():
            raise CoverageHole(
                f"pixels of the mask's piece at {piece.region_m} have data and were not examined",
                hint="this is a defect of Foveate: please report it with the manifest of the job",
            )
        count = labels.size if with_data is None else int(np.count_nonzero(with_data))
        return layers, Tally(count, count - missing, missing)

    def _shown(self, region_w: Region) -> NDArray[np.float32] | None:
        """1 where the window of an examined cell lies: a coarse leaf shows more than what is to be examined."""
        if self._job.tree is None:
            return None
        cells = self._job.cells
        columns, rows = cells.cells_touching(region_w)
        reason = self._plan.reason[rows.start : rows.stop, columns.start : columns.stop]
        if not (reason == BACKGROUND).any():
            return None
        shown = np.zeros(region_w.size.shape, np.float32)
        for r, c in np.argwhere(reason == EXAMINED).tolist():
            window = cells.window(columns.start + c, rows.start + r).intersection(region_w)
            shown[window.slices(region_w.x, region_w.y)] = 1
        return shown

    def _background(self, piece: Piece) -> NDArray[np.bool_]:
        """(rows, columns) of the piece: whether the first or last pixel's own cell was skipped as background."""
        lattice = self._job.cells
        rows = _own_cells(
            self._job.placement.y.cell_ends(piece.rows.start_m, piece.rows.end_m), lattice.stride, lattice.rows
        )
        columns = _own_cells(
            self._job.placement.x.cell_ends(piece.columns.start_m, piece.columns.end_m), lattice.stride, lattice.columns
        )
        skipped = self._plan.reason == BACKGROUND
        found = np.zeros(piece.region_m.size.shape, bool)
        for r in rows:
            for c in columns:
                found |= skipped[np.ix_(r, c)]
        return found


def _nothing(shape: tuple[int, int], classes: int, extras: Collection[str]) -> Layers:
    """The layers of a piece that nobody examined."""
    layers: Layers = {
        LABELS: np.full(shape, NODATA, np.uint8),
        UNCERTAINTY: np.full(shape, -1, np.int16),
        PROBABILITIES: np.full((classes, *shape), np.nan, np.float16),
    }
    return {name: layer for name, layer in layers.items() if name == LABELS or name in extras}


def _own_cells(ends_w: NDArray[np.int64], stride: int, count: int) -> NDArray[np.int64]:
    return np.minimum(ends_w // stride, count - 1)


def _shifted(taps: Taps, origin: int) -> Taps:
    return Taps(taps.first - origin, taps.second - origin, taps.t)


def _any_in_squares(valid: NDArray[np.bool_] | None, side: int) -> NDArray[np.bool_] | None:
    """Whether any pixel of each square of `side` pixels is True; the last row and column may be cut."""
    if valid is None or side == 1:
        return valid
    rows, columns = valid.shape
    padded = np.pad(valid, ((0, -rows % side), (0, -columns % side)))
    squares: NDArray[np.bool_] = np.any(
        padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side), axis=(1, 3)
    )
    return squares

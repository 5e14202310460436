"""From a block's open sums to committed labels; seams are closed as soon as their blocks are there."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import CoverageHole
from foveate.schema import NODATA
from model.accumulator import Accumulator
from model.device import Ferry, Landing
from model.finishing import LABELS, PROBABILITIES, UNCERTAINTY, Layers, Taps, finish
from model.sums import OpenSums, Part, ScaleSums
from raster.geometry import Region
from raster.grid import Block
from worker.canvas import CLOSED, BlockRecord, Canvas, SeamShare, Tally
from worker.job import Job
from worker.placement import Piece
from worker.plan import BACKGROUND, EXAMINED, Plan

Here = Mapping[Block, Mapping[str, NDArray[np.float32]]]
"""Of the block that is being committed: its open sums by seam and scale."""


@dataclass(frozen=True)
class _Finishing:
    """Layers of a piece on their way from the device; None: nobody examined any of it."""

    piece: Piece
    landing: Landing | None
    with_data: NDArray[np.bool_] | None


@dataclass(frozen=True)
class ForwardedBlock:
    """A block whose patches are all forwarded: its open sums by scale, and the damage that it met.

    `leaf`, of refined coverage: the level of the node that owns each cell of the block.
    """

    block: Block
    sums: Mapping[int, Accumulator]
    damaged: frozenset[Region]
    leaf: NDArray[np.int8] | None = None


class Commits:
    """What one job has committed to its canvas, and how more gets there. For one thread at a time.

    Changes over time: `done`, the committed blocks; of these and the seams between them `tally`, `pixels_decoded`, and
    `damaged`, the level-0 regions of damage, which begins with what was known before.
    """

    def __init__(self, job: Job, plan: Plan, canvas: Canvas, ferry: Ferry, known_damage: frozenset[Region]) -> None:
        self._job, self._plan, self._canvas, self._ferry = job, plan, canvas, ferry
        self._values = np.array([card.value for card in job.card.classes], np.uint8)
        self._extras = tuple(sorted(set(job.options.outputs)))
        self.done: set[Block] = set()
        self.tally, self.pixels_decoded, self.damaged = Tally(), 0, known_damage
        self._closed: set[str] = set()
        self._summed: dict[Block, Mapping[str, SeamShare]] = {}
        self._rows_done = 0

    def take_up(self, take: Callable[[Block, BlockRecord], None], tick: Callable[[], None]) -> None:
        """What the canvas holds already goes to `take`; seams that were cut off before they closed are closed.

        A block whose share of an open seam is lost is not done. `tick` is called often, and may raise to stop.
        """
        for piece in self._job.placement.pieces():
            tick()
            seam = self._canvas.seam(piece) if len(piece.owners) > 1 else None
            if seam is not None:
                self._closed.add(piece.name)
                self.tally += seam[1]
        for block in self._job.placement.blocks:
            tick()
            record = self._canvas.block(block)
            if record is not None and self._holds_open_sums(block, record):
                self._note(block, record)
                take(block, record)
        for block in sorted(self.done, key=lambda block: (block.row, block.column)):
            tick()
            self._close_seams(block, {})
            self._drop_sums(block)

    def _holds_open_sums(self, block: Block, record: BlockRecord) -> bool:
        needed = (name for name in record.sums if _seam_of(name) not in self._closed)
        return all(self._canvas.holds_sums(block, name, record.sums[name].checksum) for name in needed)

    def move_here(self) -> None:
        """To be called in the thread that commits from now on."""
        self._ferry = self._ferry.another()

    def hand_on(self, take: Callable[[int, frozenset[Region]], None]) -> None:
        """Rows of blocks that are done, with all before them and the seams between, go to `take`, once each."""
        blocks = self._job.placement.blocks
        columns = range(len(blocks.column_spans))
        while self._rows_done < len(blocks.row_spans):
            if not all(blocks.at(self._rows_done, column) in self.done for column in columns):
                return
            take(self._rows_done, self.damaged)
            self._rows_done += 1

    def commit(self, forwarded: ForwardedBlock) -> None:
        """What the block came to: the seams that waited for it alone, its share of the others, and its own labels.

        Everything goes down from the device before anything is waited for. A seam that closes here needs no file of
        this block's sums; the block, which counts as done only afterwards, remembers that it had a share.
        """
        block = forwarded.block
        own: list[_Finishing] = []
        shared: dict[str, Landing] = {}
        for piece in self._job.placement.pieces_of(block):
            parts = self._parts(forwarded, piece)
            if len(piece.owners) == 1:
                own.append(self._finishing(piece, parts))
            else:
                for part in parts:
                    name = _name(piece, part.scale)
                    shared[name] = self._ferry.down({name: part.values})
        pieces: dict[str, Layers] = {}
        tally = Tally()
        for finishing in own:
            pieces[finishing.piece.name], counted = self._checked(finishing)
            tally += counted
        open_sums = {name: landing.arrays()[name] for name, landing in shared.items()}
        self._close_seams(block, open_sums)
        found = {name: self._share(block, name, sums) for name, sums in open_sums.items()}
        sums = {name: kept for name, kept in found.items() if kept is not None}
        decoded = self._job.source.take_pixels_decoded()
        record = BlockRecord(pieces, forwarded.damaged, tally, decoded, forwarded.leaf, sums)
        self._canvas.commit_block(block, record)
        self._note(block, record)
        self._drop_sums(block)

    def _parts(self, forwarded: ForwardedBlock, piece: Piece) -> tuple[Part, ...]:
        """The block's sums over the piece."""
        found = []
        for scale, sums in forwarded.sums.items():
            corner = self._job.placement.support(forwarded.block, scale)
            part = self._job.placement.region(piece, scale).intersection(corner)
            found.append(ScaleSums(sums.there(part.shifted(-corner.x, -corner.y)), scale, part.x, part.y))
        return tuple(found)

    def _share(self, block: Block, name: str, sums: NDArray[np.float32]) -> SeamShare | None:
        return CLOSED if _seam_of(name) in self._closed else self._canvas.commit_sums(block, name, sums)

    def _note(self, block: Block, record: BlockRecord) -> None:
        self.tally += record.tally
        self.pixels_decoded += record.pixels_decoded
        self.damaged |= record.damaged
        self._summed[block] = record.sums
        self.done.add(block)

    def _close_seams(self, block: Block, open_sums: Mapping[str, NDArray[np.float32]]) -> None:
        """Close the block's seams whose other owners are done; `open_sums`: its own, by seam and scale, unless they are
        kept."""
        placement = self._job.placement
        for piece in placement.pieces_of(block):
            owners = [placement.blocks.at(*owner) for owner in piece.owners]
            ready = len(owners) > 1 and all(owner in self.done or owner == block for owner in owners)
            if ready and piece.name not in self._closed:
                here = {} if block in self.done else {block: open_sums}
                self.tally += self._close(piece, owners, here)
                self._closed.add(piece.name)

    def _drop_sums(self, block: Block) -> None:
        """Of the block and those around it, where all seams are closed."""
        for neighbour in self._around(block):
            pieces = self._job.placement.pieces_of(neighbour)
            if all(len(piece.owners) == 1 or piece.name in self._closed for piece in pieces):
                self._canvas.drop_sums(neighbour, self._summed.pop(neighbour, ()))

    def _close(self, piece: Piece, owners: list[Block], here: Here) -> Tally:
        """Commit the seam's labels."""
        try:
            found = [self._added(piece, scale, owners, here) for scale in self._job.scales]
        except FileNotFoundError:
            # An attempt that lost its lease may still have closed the seam, and dropped what was needed for it.
            closed = self._canvas.seam(piece)
            if closed is None:
                raise
            return closed[1]
        parts = tuple(part for part in found if part is not None)
        layers, tally = self._checked(self._finishing(piece, parts))
        self._canvas.commit_seam(piece, layers, tally)
        return tally

    def _around(self, block: Block) -> Iterator[Block]:
        blocks = self._job.placement.blocks
        for row in range(max(0, block.row - 1), min(block.row + 2, len(blocks.row_spans))):
            for column in range(max(0, block.column - 1), min(block.column + 2, len(blocks.column_spans))):
                yield blocks.at(row, column)

    def _added(
        self, piece: Piece, scale: int, owners: list[Block], here: Here
    ) -> ScaleSums[NDArray[np.float32]] | None:
        """The owners' sums of a scale over the seam, added in lattice order: from `here`, else from the canvas. None:
        nobody added any there."""
        placement, name = self._job.placement, _name(piece, scale)
        region = placement.region(piece, scale)
        total: NDArray[np.float32] | None = None
        for owner in owners:
            share = region.intersection(placement.support(owner, scale))
            y, x = share.y - region.y, share.x - region.x
            sums = here.get(owner, {}).get(name)
            if owner not in here and (kept := self._summed[owner].get(name)) is not None:
                sums, y, x = self._canvas.sums(owner, name), y + kept.y, x + kept.x
            if sums is None:
                continue
            if total is None and sums.shape[1:] == region.size.shape:
                total = np.array(sums)
                continue
            if total is None:
                total = np.zeros((sums.shape[0], *region.size.shape), np.float32)
            total[:, y : y + sums.shape[1], x : x + sums.shape[2]] += sums
        return None if total is None else ScaleSums(total, scale, region.x, region.y)

    def _finishing(self, piece: Piece, parts: tuple[ScaleSums[Any], ...]) -> _Finishing:
        """The layers of a piece from the sums over it, which are none where nobody examined any of it."""
        job, placement = self._job, self._job.placement
        valid = job.source.read_valid(placement.piece_l0(piece))
        landing = None
        if parts:
            region = placement.region(piece)
            layers = finish(
                OpenSums(region, parts),
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
        return layers, Tally(count, missing)

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
                found |= skipped[r].take(c, axis=1)
        return found


def _name(piece: Piece, scale: int) -> str:
    """Of a block's open sums of a scale over a seam."""
    return f"{piece.name}.{scale}"


def _seam_of(name: str) -> str:
    return name.rpartition(".")[0]


def _nothing(shape: tuple[int, int], classes: int, extras: Collection[str]) -> Layers:
    """The layers of a piece that nobody examined."""
    layers: Layers = {LABELS: np.full(shape, NODATA, np.uint8)}
    if UNCERTAINTY in extras:
        layers[UNCERTAINTY] = np.full(shape, -1, np.int16)
    if PROBABILITIES in extras:
        layers[PROBABILITIES] = np.full((classes, *shape), np.nan, np.float16)
    return layers


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

"""Where the pixels of the mask come from: the one chain from mask pixels over level 0 to working pixels and blocks.

Frames: mask pixels (`_m`) are squares of `downsample` level-0 pixels counted from the corner of the region of interest;
level-0 pixel u has its centre at working coordinate (u + 0.5) / ratio - 0.5 and is read there by linear interpolation.
Every mask pixel belongs to exactly one piece: a part of the interior of a block (its own patches alone touch it), or a
seam between two or four blocks. Under a tree sums are held at several scales; a working pixel is read from those pixels
of each between whose centres it lies.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.finishing import Taps
from raster.geometry import Region, Size
from raster.grid import Block, Blocks, Lattice, WorkingGrid, cut_blocks, sources
from raster.overviews import TILE


@dataclass(frozen=True)
class Axis:
    """One axis of the mask."""

    start_l0: int
    end_l0: int
    downsample: int
    ratio: float
    """Level-0 pixels per working pixel."""
    size_w: int
    """Working pixels of the whole image."""

    @property
    def length_m(self) -> int:
        return -(-(self.end_l0 - self.start_l0) // self.downsample)

    def l0(self, start_m: int, end_m: int) -> tuple[int, int]:
        """The level-0 pixels under mask pixels."""
        return (
            self.start_l0 + start_m * self.downsample,
            min(self.start_l0 + end_m * self.downsample, self.end_l0),
        )

    def taps(self, start_m: int, end_m: int) -> Taps:
        """The working pixels that the level-0 pixels under these mask pixels are read from, in working coordinates."""
        level0 = np.arange(*self.l0(start_m, end_m), dtype=np.float64)
        if self.ratio == 1.0:
            same = level0.astype(np.int64)
            return Taps(same, same, np.zeros(len(same), np.float32))
        place = np.clip((level0 + 0.5) / self.ratio - 0.5, 0, self.size_w - 1)
        first = np.minimum(np.floor(place).astype(np.int64), max(0, self.size_w - 2))
        second = np.minimum(first + 1, self.size_w - 1)
        return Taps(first, second, (place - first).astype(np.float32))

    def working(self, start_m: int, end_m: int, scale: int = 1) -> tuple[int, int]:
        """The range of working pixels that `taps` names, or of pixels of a scale that these are read from."""
        ends = [self.taps(start_m, start_m + 1), self.taps(end_m - 1, end_m)]
        first, last = int(ends[0].first.min()), int(ends[1].second.max()) + 1
        return sources(range(first, last), scale, -(-self.size_w // scale))

    def cell_ends(self, start_m: int, end_m: int) -> NDArray[np.int64]:
        """(2, n): the working pixels under the first and the last level-0 pixel of each of these mask pixels."""
        first = self.start_l0 + np.arange(start_m, end_m, dtype=np.int64) * self.downsample
        last = np.minimum(first + self.downsample, self.end_l0) - 1
        under = np.floor((np.stack([first, last]) + 0.5) / self.ratio).astype(np.int64)
        return np.clip(under, 0, self.size_w - 1)

    def first_reading(self, edge_w: int, scale: int) -> int:
        """The first mask pixel that reads a pixel of the scale at or beyond the working pixel `edge_w`."""
        return self._first(lambda index: self.working(index, index + 1, scale)[1] * scale > edge_w)

    def first_clear_of(self, edge_w: int, scale: int) -> int:
        """The first mask pixel that reads no pixel of the scale before the working pixel `edge_w`."""
        return self._first(lambda index: self.working(index, index + 1, scale)[0] * scale >= edge_w)

    def _first(self, holds: Callable[[int], bool]) -> int:
        low, high = 0, self.length_m
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(middle) else (middle + 1, high)
        return low


@dataclass(frozen=True)
class Span:
    """Neighbouring mask pixels of one axis that the blocks `owners` (one, or two across a seam) label together."""

    start_m: int
    end_m: int
    owners: tuple[int, ...]


def spans(axis: Axis, starts_w: tuple[int, ...], overlap_px: int, coarsest: int = 1) -> tuple[Span, ...]:
    """The axis cut into interiors and seams; `starts_w` are the first working pixels of its blocks, and these and the
    overlap whole pixels of the `coarsest` scale."""
    cuts: list[Span] = []
    done = 0
    for block, edge in enumerate(starts_w[1:], start=1):
        seam_start = max(done, axis.first_reading(edge, coarsest))
        seam_end = max(seam_start, axis.first_clear_of(edge + overlap_px, coarsest))
        cuts += [Span(done, seam_start, (block - 1,)), Span(seam_start, seam_end, (block - 1, block))]
        done = seam_end
    cuts.append(Span(done, axis.length_m, (len(starts_w) - 1,)))
    return tuple(cut for cut in cuts if cut.end_m > cut.start_m)


def cut_at_tiles(rows: tuple[Span, ...]) -> tuple[Span, ...]:
    """Interiors cut where rows of the mask's tiles begin: what is held of the whole width is no higher than a tile."""
    cuts: list[Span] = []
    for span in rows:
        start, end = span.start_m, span.end_m
        inner = range(start // TILE * TILE + TILE, end, TILE) if len(span.owners) == 1 else ()
        cuts += [Span(a, b, span.owners) for a, b in pairwise([start, *inner, end])]
    return tuple(cuts)


@dataclass(frozen=True)
class Piece:
    """A rectangle of mask pixels with its owners, which are blocks (row, column) in lattice order."""

    rows: Span
    columns: Span

    @property
    def owners(self) -> tuple[tuple[int, int], ...]:
        return tuple((row, column) for row in self.rows.owners for column in self.columns.owners)

    @property
    def region_m(self) -> Region:
        return Region.between(self.columns.start_m, self.rows.start_m, self.columns.end_m, self.rows.end_m)

    @property
    def name(self) -> str:
        return f"{self.rows.start_m}-{self.columns.start_m}"


@dataclass(frozen=True)
class Placement:
    """The mask's grid over level 0, the blocks that compute it, and the pieces that they label."""

    x: Axis
    y: Axis
    lattice: Lattice
    blocks: Blocks
    column_spans: tuple[Span, ...]
    row_spans: tuple[Span, ...]
    coarsest: int = 1
    """The largest scale that sums are held at: so many working pixels a side make one of its pixels."""

    @property
    def mask_size(self) -> Size:
        return Size(self.x.length_m, self.y.length_m)

    @property
    def cells(self) -> tuple[range, range]:
        """Rows and columns of the cells that the blocks own."""
        rows, columns = self.blocks.row_spans, self.blocks.column_spans
        return range(rows[0].start, rows[-1].stop), range(columns[0].start, columns[-1].stop)

    @property
    def region_l0(self) -> Region:
        """The region of interest, in level-0 pixels."""
        return Region.between(self.x.start_l0, self.y.start_l0, self.x.end_l0, self.y.end_l0)

    def pieces(self) -> Iterator[Piece]:
        """Every mask pixel once, row by row."""
        for rows in self.row_spans:
            for columns in self.column_spans:
                yield Piece(rows, columns)

    def pieces_of(self, block: Block) -> list[Piece]:
        """The pieces that this block labels, alone or with neighbours."""
        return [
            Piece(rows, columns)
            for rows in self.row_spans
            if block.row in rows.owners
            for columns in self.column_spans
            if block.column in columns.owners
        ]

    def region(self, piece: Piece, scale: int = 1) -> Region:
        """The pixels of a scale that the piece reads; of 1, the working pixels."""
        x0, x1 = self.x.working(piece.columns.start_m, piece.columns.end_m, scale)
        y0, y1 = self.y.working(piece.rows.start_m, piece.rows.end_m, scale)
        return Region.between(x0, y0, x1, y1)

    @property
    def reach_w(self) -> Region:
        """The working pixels under all pixels, of whatever scale, that the mask is read from."""
        return _reach(self.x, self.y, self.coarsest)

    def piece_l0(self, piece: Piece) -> Region:
        """The level-0 pixels under the piece."""
        x0, x1 = self.x.l0(piece.columns.start_m, piece.columns.end_m)
        y0, y1 = self.y.l0(piece.rows.start_m, piece.rows.end_m)
        return Region.between(x0, y0, x1, y1)

    def support(self, block: Block, scale: int = 1) -> Region:
        """The pixels of a scale that meet the image and that the block's own patches touch; of 1, working pixels."""
        first = self.lattice.window(block.columns.start, block.rows.start)
        last = self.lattice.window(block.columns[-1], block.rows[-1])
        inside = Region.between(first.x, first.y, last.x1, last.y1).intersection(Region.of(self.lattice.size))
        return Region.snapped_out(inside.x / scale, inside.y / scale, inside.x1 / scale, inside.y1 / scale)


def place(
    grid: WorkingGrid, lattice: Lattice, roi_l0: Region, downsample: int, block_cells: int, *, flat: bool = False,
    coarsest: int = 1,
) -> Placement:  # fmt: skip
    """The placement of a mask over `roi_l0`, in blocks of about `block_cells` cells a side (seams may need more).

    `flat` as in `cut_blocks`; `coarsest` as in `Placement`.
    """
    x = Axis(roi_l0.x, roi_l0.x1, downsample, grid.ratio[0], grid.size.width)
    y = Axis(roi_l0.y, roi_l0.y1, downsample, grid.ratio[1], grid.size.height)
    # A seam and the reach of a mask pixel on both of its sides must fit into one block.
    reach = 4 + 2 * math.ceil(downsample / min(grid.ratio)) + 4 * (coarsest - 1)
    least = -(-(lattice.overlap_px + reach) // lattice.stride)

    columns, rows = lattice.cells_touching(_reach(x, y, coarsest))
    blocks = cut_blocks(columns, rows, max(block_cells, least), least, flat=flat)
    starts_x, starts_y = (
        tuple(lattice.start(span.start) for span in cells) for cells in (blocks.column_spans, blocks.row_spans)
    )
    return Placement(
        x,
        y,
        lattice,
        blocks,
        spans(x, starts_x, lattice.overlap_px, coarsest),
        cut_at_tiles(spans(y, starts_y, lattice.overlap_px, coarsest)),
        coarsest,
    )


def _reach(x: Axis, y: Axis, scale: int) -> Region:
    """The working pixels under all pixels of a scale that the mask is read from."""
    x0, x1 = x.working(0, x.length_m, scale)
    y0, y1 = y.working(0, y.length_m, scale)
    return Region.between(x0 * scale, y0 * scale, x1 * scale, y1 * scale)

"""Where the pixels of the mask come from: the one chain from mask pixels over level 0 to working pixels and blocks.

Frames: mask pixels (`_m`) are squares of `downsample` level-0 pixels counted from the corner of the region of interest;
level-0 pixel u has its centre at working coordinate (u + 0.5) / ratio - 0.5 and is read there by linear interpolation.
Every mask pixel belongs to exactly one piece: a part of the interior of a block (its own patches alone touch it), or a
seam between two or four blocks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.finishing import Taps
from raster.geometry import Region, Size
from raster.grid import Block, Blocks, Lattice, WorkingGrid, cut_blocks
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

    def working(self, start_m: int, end_m: int) -> tuple[int, int]:
        """The range of working pixels that `taps` names."""
        ends = [self.taps(start_m, start_m + 1), self.taps(end_m - 1, end_m)]
        return int(ends[0].first.min()), int(ends[1].second.max()) + 1

    def cell_ends(self, start_m: int, end_m: int) -> NDArray[np.int64]:
        """(2, n): the working pixels under the first and the last level-0 pixel of each of these mask pixels."""
        first = self.start_l0 + np.arange(start_m, end_m, dtype=np.int64) * self.downsample
        last = np.minimum(first + self.downsample, self.end_l0) - 1
        under = np.floor((np.stack([first, last]) + 0.5) / self.ratio).astype(np.int64)
        return np.clip(under, 0, self.size_w - 1)

    def first_reading(self, edge_w: int) -> int:
        """The first mask pixel that reads a working pixel at or beyond `edge_w`."""
        return self._first(lambda index: self.working(index, index + 1)[1] > edge_w)

    def first_clear_of(self, edge_w: int) -> int:
        """The first mask pixel that reads no working pixel before `edge_w`."""
        return self._first(lambda index: self.working(index, index + 1)[0] >= edge_w)

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


def spans(axis: Axis, starts_w: tuple[int, ...], overlap_px: int) -> tuple[Span, ...]:
    """The axis cut into interiors and seams; `starts_w` are the first working pixels of its blocks."""
    cuts: list[Span] = []
    done = 0
    for block, edge in enumerate(starts_w[1:], start=1):
        seam_start = max(done, axis.first_reading(edge))
        seam_end = max(seam_start, axis.first_clear_of(edge + overlap_px))
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

    def region_w(self, piece: Piece) -> Region:
        """The working pixels that the piece reads."""
        x0, x1 = self.x.working(piece.columns.start_m, piece.columns.end_m)
        y0, y1 = self.y.working(piece.rows.start_m, piece.rows.end_m)
        return Region.between(x0, y0, x1, y1)

    def piece_l0(self, piece: Piece) -> Region:
        """The level-0 pixels under the piece."""
        x0, x1 = self.x.l0(piece.columns.start_m, piece.columns.end_m)
        y0, y1 = self.y.l0(piece.rows.start_m, piece.rows.end_m)
        return Region.between(x0, y0, x1, y1)

    def support(self, block: Block) -> Region:
        """The working pixels inside the image that the block's own patches touch."""
        first = self.lattice.window(block.columns.start, block.rows.start)
        last = self.lattice.window(block.columns[-1], block.rows[-1])
        return Region.between(first.x, first.y, last.x1, last.y1).intersection(Region.of(self.lattice.size))


def place(
    grid: WorkingGrid, lattice: Lattice, roi_l0: Region, downsample: int, block_cells: int, *, flat: bool = False
) -> Placement:
    """The placement of a mask over `roi_l0`, in blocks of about `block_cells` cells a side (seams may need more).

    `flat` as in `cut_blocks`.
    """
    x = Axis(roi_l0.x, roi_l0.x1, downsample, grid.ratio[0], grid.size.width)
    y = Axis(roi_l0.y, roi_l0.y1, downsample, grid.ratio[1], grid.size.height)
    x_w, y_w = x.working(0, x.length_m), y.working(0, y.length_m)
    columns, rows = lattice.cells_touching(Region.between(x_w[0], y_w[0], x_w[1], y_w[1]))
    # A seam and the reach of a mask pixel on both of its sides must fit into one block.
    reach = 4 + 2 * math.ceil(downsample / min(grid.ratio))
    least = -(-(lattice.overlap_px + reach) // lattice.stride)
    blocks = cut_blocks(columns, rows, max(block_cells, least), least, flat=flat)
    return Placement(
        x,
        y,
        lattice,
        blocks,
        spans(x, tuple(lattice.start(span.start) for span in blocks.column_spans), lattice.overlap_px),
        cut_at_tiles(spans(y, tuple(lattice.start(span.start) for span in blocks.row_spans), lattice.overlap_px)),
    )

"""The working grid, the lattice of cells on it, and its cutting into blocks (design, section 2).

Frames: `_l0` level-0 pixels; `_w` working pixels (level 0 resampled to the bundle's spacing); cells are columns and
rows of the lattice. All that plans, reads patches and stitches is integer on the working grid; only the reader and the
writer know the ratio.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from raster.geometry import Region, Size

_ROWS_OF_BLOCKS = 16
"""Of flat blocks: what comes after the last patch is about the assembling of one such row."""
_CELLS_IN_A_ROW = 600
"""Of flat blocks, where two rows of cells are fewer: memory holds the labels of one such row, however wide."""


@dataclass(frozen=True)
class WorkingGrid:
    """Level 0 at the bundle's spacing: working pixel k covers [k * ratio, (k + 1) * ratio) of level 0, per axis."""

    image: Size
    ratio: tuple[float, float]
    """Level-0 pixels per working pixel along x and y; (1.0, 1.0): level 0 itself."""

    @property
    def size(self) -> Size:
        """Working pixels that touch the image; the last column and row may hang over its border."""
        return Size(*(max(1, math.ceil(n / r - 1e-9)) for n, r in zip(self._sides, self.ratio, strict=True)))

    @property
    def _sides(self) -> tuple[int, int]:
        return self.image.width, self.image.height


@dataclass(frozen=True)
class Lattice:
    """Cells whose centres lie at origin + patch / 2 + k * stride working pixels along both axes.

    Cell k's window for field of view f is [centre - f / 2, centre + f / 2). Windows of one field of view fall on one
    pixel grid of its resolution (`aligned`) wherever a stride allows it.
    """

    size: Size
    patch: int
    fovs: tuple[int, ...]
    stride: int
    aligned: bool
    columns: int
    rows: int
    origin: int = 0
    """Where the first window starts along both axes; negative where windows reach over squares that start at 0."""

    @property
    def overlap(self) -> float:
        """Shared share of neighbouring windows: what the stride really gives, not what was asked."""
        return 1 - self.stride / self.patch

    @property
    def overlap_px(self) -> int:
        return self.patch - self.stride

    def window(self, column: int, row: int) -> Region:
        """The working pixels that this cell labels: the window of the smallest field of view."""
        return Region(self.start(column), self.start(row), self.patch, self.patch)

    def start(self, index: int) -> int:
        """The first working pixel of a column's, or a row's, windows."""
        return self.origin + index * self.stride

    def cells_touching(self, region_w: Region) -> tuple[range, range]:
        """Columns and rows of the cells whose windows meet `region_w`."""
        area = region_w.shifted(-self.origin, -self.origin)
        return (
            _indices(area.x, area.x1, self.stride, self.patch, self.columns),
            _indices(area.y, area.y1, self.stride, self.patch, self.rows),
        )


def _indices(start: int, end: int, stride: int, patch: int, count: int) -> range:
    first = max(0, (start - patch) // stride + 1)
    last = min(count - 1, (end - 1) // stride)
    return range(first, last + 1)


def make_lattice(size: Size, patch: int, fovs: tuple[int, ...], overlap: float) -> Lattice:
    """The lattice over a working grid of `size` for the bank `fovs` with at least the requested overlap (0 to 0.75)."""
    wanted = max(1, int(patch * (1 - overlap) + 1e-9))
    step = common_step(patch, fovs)
    aligned = step <= wanted
    stride = wanted // step * step if aligned else wanted
    return Lattice(
        size, patch, fovs, stride, aligned, count_of(size.width, patch, stride), count_of(size.height, patch, stride)
    )


def common_step(patch: int, fovs: tuple[int, ...]) -> int:
    """The least number of working pixels that is a whole number of pixels at the resolution of every field of view."""
    scales = [Fraction(fov, patch) for fov in fovs]
    numerator = math.lcm(*(scale.numerator for scale in scales))
    denominator = math.gcd(*(scale.denominator for scale in scales))
    return Fraction(numerator, denominator).numerator


def sources(places: range, scale: int, length: int) -> tuple[int, int]:
    """Of `length` pixels, each as wide as `scale` finer ones: those between whose centres these finer ones lie, from
    and up to."""
    return max(0, (places.start - scale // 2) // scale), min(length, (places.stop - 1 + scale // 2) // scale + 1)


def count_of(length: int, patch: int, stride: int) -> int:
    """Windows of `patch` pixels, `stride` apart from the first pixel on, that cover `length` pixels."""
    return 1 if length <= patch else -(-(length - patch) // stride) + 1


@dataclass(frozen=True, order=True)
class Block:
    """A rectangle of lattice cells; owns their patches. `row` and `column` are its own place among the blocks."""

    row: int
    column: int
    rows: range
    columns: range

    @property
    def name(self) -> str:
        return f"{self.row:05d}-{self.column:05d}"

    def __hash__(self) -> int:
        return hash((self.row, self.column))


@dataclass(frozen=True)
class Blocks:
    """The blocks of a rectangle of cells, in row-major order; `column_spans` and `row_spans` are their cells."""

    column_spans: tuple[range, ...]
    row_spans: tuple[range, ...]

    def __len__(self) -> int:
        return len(self.column_spans) * len(self.row_spans)

    def __iter__(self) -> Iterator[Block]:
        for row in range(len(self.row_spans)):
            for column in range(len(self.column_spans)):
                yield self.at(row, column)

    def at(self, row: int, column: int) -> Block:
        return Block(row, column, self.row_spans[row], self.column_spans[column])


def cut_blocks(columns: range, rows: range, side: int, least: int, *, flat: bool = False) -> Blocks:
    """Cut a rectangle of cells into blocks of about `side` cells a side, none narrower than `least` where avoidable.

    `flat`: blocks of as many cells but fewer rows, so that a row of them is a sixteenth of the whole where that fits,
    and no more than some hundred cells.
    """
    high = side
    if flat:
        sixteenth, few = -(-len(rows) // _ROWS_OF_BLOCKS), max(2, _CELLS_IN_A_ROW // len(columns))
        high = min(side, max(least, min(sixteenth, few)))
    return Blocks(_cut(columns, side * side // high, least), _cut(rows, high, least))


def _cut(cells: range, side: int, least: int) -> tuple[range, ...]:
    count = max(1, min(-(-len(cells) // side), len(cells) // max(1, least)))
    edges = [cells.start + len(cells) * k // count for k in range(count + 1)]
    return tuple(range(a, b) for a, b in pairwise(edges))

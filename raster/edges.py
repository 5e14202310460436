"""Horizontal edges of the regions of a strip of a mask: all that tracing needs, since verticals only join them.

A region is a 4-connected set of pixels of one value. Its boundary is walked with the region on the right hand: east
along the top of its pixels, south along their right, west along their bottom, north along their left. Where two
pixels of a region touch at a corner only, the walk turns around each of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.schema import NODATA

Y, START, END, PINCHED = range(4)
"""Columns of `Edges.table`."""
START_PINCHED, END_PINCHED = 1, 2

Table = NDArray[np.int32]
"""(n, 4): edges, by the columns above."""


@dataclass(frozen=True)
class Edges:
    """The edges on some rows of pixel corners, in the order of (y, leftmost x); n of them.

    `table` (n, 4) int32: y; x where the walk enters the edge and where it leaves it, in pixel corners; and flags that
    say whether it turns there at a corner at which four pixels of at least two regions meet crosswise. `values` (n,)
    uint8: the region's value. `from_north` (n,): whether the walk comes to the start by a north-going side, else by a
    south-going one; `to_south` (n,): whether it goes on south at the end, else north.
    """

    table: Table
    values: NDArray[np.uint8]
    from_north: NDArray[np.bool_]
    to_south: NDArray[np.bool_]

    @property
    def left(self) -> NDArray[np.int32]:
        return np.minimum(self.table[:, START], self.table[:, END])

    @property
    def areas(self) -> NDArray[np.int64]:
        """(n,): the edge's part in the area that a whole ring goes round: positive outside, negative around a hole."""
        table = self.table.astype(np.int64)
        return table[:, Y] * (table[:, START] - table[:, END])


def edges_of(above: NDArray[np.uint8], rows: NDArray[np.uint8], y: int) -> Edges:
    """The edges between `above`, the row of pixels (width,) before it, and each row of `rows` (height, width).

    `y` is the row of pixel corners over `rows[0]`. What lies beyond the sides is no data, as is the row over the mask.
    """
    padded = np.full((len(rows) + 1, rows.shape[1] + 2), NODATA, np.uint8)
    padded[0, 1:-1] = above
    padded[1:, 1:-1] = rows
    width = padded.shape[1]
    upper, lower = padded[:-1].ravel(), padded[1:].ravel()
    places = np.flatnonzero(upper != lower)
    tops = _Runs.of(places, lower)
    bottoms = _Runs.of(places, upper)
    order = np.argsort(np.concatenate([tops.first, bottoms.first]), kind="stable")
    start, end = np.concatenate([tops.first, bottoms.end])[order], np.concatenate([tops.end, bottoms.first])[order]
    row = start // width
    table = np.empty((len(order), 4), np.int32)
    table[:, Y] = row + y
    table[:, START] = start - row * width - 1
    table[:, END] = end - row * width - 1
    pinched = _pinched(upper, lower, start), _pinched(upper, lower, end)
    table[:, PINCHED] = pinched[0] * START_PINCHED + pinched[1] * END_PINCHED
    return Edges(
        table,
        np.concatenate([tops.values, bottoms.values])[order],
        np.concatenate([tops.left_turns, ~bottoms.right_turns])[order],
        np.concatenate([tops.right_turns, ~bottoms.left_turns])[order],
    )


@dataclass(frozen=True)
class _Runs:
    """Neighbouring pixels of one value with another value beyond one horizontal side: places in a padded strip.

    `left_turns` and `right_turns`: whether the region ends there, else it goes on around the inner corner.
    """

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    values: NDArray[np.uint8]
    left_turns: NDArray[np.bool_]
    right_turns: NDArray[np.bool_]

    @classmethod
    def of(cls, places: NDArray[np.int64], pixels: NDArray[np.uint8]) -> "_Runs":
        values = pixels[places]
        examined = values != NODATA
        places, values = places[examined], values[examined]
        broken = np.ones(len(places) + 1, bool)
        broken[1:-1] = (places[1:] != places[:-1] + 1) | (values[1:] != values[:-1])
        first, end, values = places[broken[:-1]], places[broken[1:]] + 1, values[broken[:-1]]
        return cls(first, end, values, pixels[first - 1] != values, pixels[end] != values)


def _pinched(upper: NDArray[np.uint8], lower: NDArray[np.uint8], corner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the four pixels around each corner, left of the place of that index, are equal along a diagonal only."""
    a, b, c, d = upper[corner - 1], upper[corner], lower[corner - 1], lower[corner]
    found: NDArray[np.bool_] = ((a == d) | (b == c)) & (a != b) & (a != c) & (d != b) & (d != c)
    return found

"""Rings of corners as the standards want them: none touches itself. Many lie one after the other in one array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raster.edges import END, END_PINCHED, PINCHED, START, START_PINCHED, Table, Y
from raster.walks import Indices, walks

Corners = NDArray[np.int32]
"""(n, 2): pixel corners (x, y) of the mask."""


@dataclass(frozen=True)
class Rings:
    """n rings: ring k passes corners[starts[k] : starts[k + 1]], and the first of them again. `starts` is (n + 1,)."""

    corners: Corners
    starts: Indices

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def firsts(self) -> Corners:
        """(n, 2): the corner that each begins with."""
        return self.corners[self.starts[:-1]]

    def take(self, order: Indices) -> "Rings":
        """Some of them, in this order; shares nothing with these."""
        places, starts = spread(self.starts, order)
        return Rings(self.corners[places], starts)


def joined(parts: Sequence[Rings]) -> Rings:
    """All rings of all parts in order."""
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    return Rings(np.concatenate([part.corners for part in parts]), starts_of(lengths))


@dataclass(frozen=True)
class Outlines:
    """n connected components: their values (n,) uint8, how many pixels each has (n,), and their rings.

    Those of component k are rings[firsts[k] : firsts[k + 1]], its outside first, then its holes from the highest,
    leftmost one on. Every ring turns at every corner, has the region on its right hand (y down), and touches itself
    nowhere. The first corner of each follows from the region alone.
    """

    values: NDArray[np.uint8]
    pixels: Indices
    rings: Rings
    firsts: Indices

    def __len__(self) -> int:
        return len(self.values)


def starts_of(lengths: Indices) -> Indices:
    """(n + 1,): where each of n stretches of these lengths begins, and where the last ends."""
    return np.concatenate([[0], np.cumsum(lengths)])


def spread(starts: Indices, order: Indices) -> tuple[Indices, Indices]:
    """The places of the stretches `order` of those that begin at `starts`, and where each begins among these places."""
    lengths = np.diff(starts)[order]
    ends = starts_of(lengths)
    return np.arange(ends[-1]) + np.repeat(starts[order] - ends[:-1], lengths), ends


def corners_of(table: Table) -> Corners:
    """The corners (2n, 2) of a walk's n edges."""
    corners = np.empty((2 * len(table), 2), np.int32)
    corners[0::2, 0], corners[1::2, 0] = table[:, START], table[:, END]
    corners[0::2, 1] = corners[1::2, 1] = table[:, Y]
    return corners


def pinches(table: Table) -> NDArray[np.int32]:
    """(n,): at how many ends of each edge it turns at a corner at which regions meet crosswise."""
    flags = table[:, PINCHED]
    found: NDArray[np.int32] = (flags & START_PINCHED > 0).astype(np.int32) + (flags & END_PINCHED > 0)
    return found


def simple_rings(table: Table, starts: Indices) -> tuple[Rings, Indices]:
    """Closed walks as rings that pass every corner once, and the walk that each ring is of (rings,).

    Walk k is table[starts[k] : starts[k + 1]]. What an outside encloses by touching itself is a hole. A ring begins
    with the corner at which it enters its highest, leftmost edge.
    """
    corners, bounds = corners_of(table), 2 * starts
    twice = _passed_twice(table, corners, bounds)
    # Arcs lead from such a corner, or a walk's first, to the next one; only they are put in order, not the corners.
    begins = np.unique(np.concatenate([bounds[:-1], twice.ravel()]))
    arcs = np.concatenate([begins, bounds[-1:]])
    following = _next(np.searchsorted(begins, bounds))
    before = np.empty_like(following)
    before[following] = np.arange(len(following))
    first, second = np.searchsorted(begins, twice)
    # A walk that comes back to a corner goes on as it did before, so that what lies between is a ring by itself.
    following[before[first]], following[before[second]] = second, first
    found = walks(following)
    places, ends = spread(arcs, found.order)
    walk = np.searchsorted(bounds, begins[found.order[found.starts[:-1]]], "right") - 1
    return _turned(Rings(corners[places], ends[found.starts])), walk


def _passed_twice(table: Table, corners: Corners, bounds: Indices) -> Indices:
    """(2, n): the places of the corners that a walk passes twice, at which regions meet crosswise. Well nested."""
    flags = np.stack([table[:, PINCHED] & START_PINCHED, table[:, PINCHED] & END_PINCHED], axis=1).ravel()
    places = np.flatnonzero(flags)
    walk = np.searchsorted(bounds, places, "right")
    order = np.lexsort((corners[places, 0], corners[places, 1], walk))
    named = np.column_stack([walk, corners[places]])[order]
    again = np.flatnonzero((named[1:] == named[:-1]).all(axis=1))
    return np.stack([places[order[again]], places[order[again + 1]]])


def _next(starts: Indices) -> Indices:
    """The place that follows each in its ring."""
    following = np.arange(1, starts[-1] + 1)
    following[starts[1:] - 1] = starts[:-1]
    return following


def _turned(rings: Rings) -> Rings:
    """The same rings, each from the corner at which it enters its highest, leftmost edge."""
    x, y = rings.corners[:, 0], rings.corners[:, 1]
    begins, lengths = rings.starts[:-1], np.diff(rings.starts)
    highest = y == np.repeat(np.minimum.reduceat(y, begins), lengths)
    across = np.where(highest, x, np.iinfo(np.int32).max)
    first = np.flatnonzero(across == np.repeat(np.minimum.reduceat(across, begins), lengths)) - begins
    turns = np.repeat(first - (areas_of(rings.corners, rings.starts) < 0), lengths)  # a hole's is walked to the west
    base = np.repeat(begins, lengths)
    places = base + (np.arange(len(x)) - base + turns) % np.repeat(lengths, lengths)
    return Rings(rings.corners[places], rings.starts)


def areas_of(corners: NDArray[np.integer[Any]], starts: Indices) -> Indices:
    """(n,): the area that each ring of axis-parallel sides goes round, negative for a hole."""
    if len(starts) == 1:
        return np.empty(0, np.int64)
    x, y = corners[:, 0].astype(np.int64), corners[:, 1].astype(np.int64)
    areas: Indices = np.add.reduceat(y * (x - x[_next(starts)]), starts[:-1])
    return areas

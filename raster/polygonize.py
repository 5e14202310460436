"""Polygons of equal class, exact and whole, out of a mask that passes by in strips of rows.

The boundaries of all regions are walked at once (`raster.edges`): horizontal edges are the nodes, sides link them. A
walk that leaves a strip at its bottom stays open, as one node of the next strip. A ring that closes is either a hole,
which belongs to whatever walk bounds the region on the hole's left, or the outside of a region, which is then complete:
every hole ends above the end of its outside. So memory follows the open walks, not the mask, and nothing that comes out
depends on how the mask was cut into strips.

4-connectivity: regions that touch at a corner only stay apart, which is what keeps polygons valid.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import NODATA
from raster.edges import END, START, Edges, Table, Y, edges_of
from raster.rings import (
    Outlines,
    Rings,
    areas_of,
    corners_of,
    joined,
    pinches,
    simple_rings,
    spread,
    starts_of,
)
from raster.walks import Indices, walks

_MOST_PIXELS, _MOST_EDGES = 1 << 22, 1 << 17
"""Of a strip that is walked at once; what is fed may be any number of rows."""


class Polygonizer:
    """Takes a mask of `width` columns row by row; changes over time.

    `minimum` is asked for each strip, so that it may rise: regions of fewer pixels are left out.
    """

    def __init__(self, width: int, minimum: Callable[[], int]) -> None:
        self._minimum = minimum
        self._above = np.full(width, NODATA, np.uint8)
        self._y = 0
        self._open = _Open()

    def add(self, rows: NDArray[np.uint8]) -> Iterator[Outlines]:
        """Take the next rows, uint8 (height, width); gives the regions that end in them, in the order of their ends."""
        while len(rows):
            count = _rows_at_once(self._above, rows)
            yield from self._walk(rows[:count])
            rows = rows[count:]

    def finish(self) -> Iterator[Outlines]:
        """The regions that end at the mask's lower border; nothing can be added afterwards."""
        yield from self._walk(np.full((1, len(self._above)), NODATA, np.uint8))

    @property
    def open_walks(self) -> int:
        """How many walks go on below the rows that were added: what memory follows."""
        return len(self._open.walks)

    def _walk(self, rows: NDArray[np.uint8]) -> Iterator[Outlines]:
        edges = edges_of(self._above, rows, self._y)
        if len(edges.table):
            self._open, found = _Strip(edges, rows, self._y, self._open).outcome(self._minimum())
            yield found
        self._above, self._y = rows[-1].copy(), self._y + len(rows)


def _rows_at_once(above: NDArray[np.uint8], rows: NDArray[np.uint8]) -> int:
    """How many of `rows` may be walked at once: noise has many more edges than a forest."""
    rows = rows[: max(1, _MOST_PIXELS // rows.shape[1])]
    changes = np.concatenate([[np.count_nonzero(rows[0] != above)], np.count_nonzero(rows[1:] != rows[:-1], axis=1)])
    return max(1, int(np.searchsorted(np.cumsum(changes), _MOST_EDGES, "right")))


@dataclass
class _Walk:
    """A walk that is open at both ends, and the holes on its right; both grow with the strips.

    `parts` are tables of edges and the walks that it took in, in order; areas are in pixels, a hole's is negative.
    `holes` are rings in any order.
    """

    value: int
    area: int
    parts: list["Table | _Walk"]
    holes: list[Rings] = field(default_factory=list)
    holes_area: int = 0

    def tables(self) -> Iterator[Table]:
        """All edges in order."""
        stack: list[Table | _Walk] = [self]
        while stack:
            part = stack.pop()
            if isinstance(part, _Walk):
                stack += reversed(part.parts)
            else:
                yield part


@dataclass(frozen=True)
class _Open:
    """The walks that cross the row of corners under the last row of pixels.

    `heads` (n,) are the columns of corners at which they come up from below, `tails` those at which they go down.
    """

    walks: list[_Walk] = field(default_factory=list)
    heads: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    tails: Indices = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class _Ends:
    """Ends of vertical sides: the columns and rows of their corners, rows from the strip's first on, and the nodes."""

    columns: Indices
    rows: Indices
    nodes: Indices


@dataclass(frozen=True)
class _Sides:
    """The vertical sides of one direction: `upper` and `lower` (n,), the nodes that those join that end in the strip.

    `tops` are the nodes at all upper ends, in the order of their `places`: column * height of the strip + row.
    """

    upper: Indices
    lower: Indices
    places: Indices
    tops: Indices

    @classmethod
    def of(cls, upper: _Ends, lower: _Ends, height: np.int64) -> "_Sides":
        columns = np.concatenate([upper.columns, lower.columns])
        nodes = np.concatenate([upper.nodes, lower.nodes])
        # Where a side ends at the corner at which the next one begins, it does so before.
        rows = np.concatenate([2 * upper.rows + 1, 2 * lower.rows])
        order = np.lexsort((_small(rows), _small(columns)))
        ends = order >= len(upper.columns)
        tops, bottoms = order[~ends], np.flatnonzero(ends)
        places = columns[tops] * height + rows[tops] // 2
        return cls(nodes[order[bottoms - 1]], nodes[order[bottoms]], places, nodes[tops])

    def above(self, places: Indices) -> Indices:
        """The nodes of the nearest upper ends above these places."""
        return self.tops[np.searchsorted(self.places, places, "left") - 1]


def _small(values: Indices) -> NDArray[Any]:
    """The same in as few bytes as they need: what has two is sorted by its digits."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


class _Strip:
    """The walks of one strip. Nodes: first the walks that were open before, then the strip's edges.

    A chain of nodes is a walk of the whole strip: closed it is a ring, else it stays open.
    """

    def __init__(self, edges: Edges, rows: NDArray[np.uint8], y: int, before: _Open) -> None:
        self._edges, self._rows, self._y, self._before = edges, rows, y, before
        self._known = len(before.walks)
        self._north, following = self._linked()
        self._walks = walks(following)
        order, starts = self._walks.order, self._walks.starts
        self._table = edges.table[np.maximum(order - self._known, 0)]
        values = np.concatenate([np.array([walk.value for walk in before.walks], np.uint8), edges.values])
        self._values = values[order[starts[:-1]]]
        self._touching = np.add.reduceat(pinches(self._table), starts[:-1]) > 1
        self._mixed = np.minimum.reduceat(order, starts[:-1]) < self._known
        own = np.concatenate([np.array([walk.area for walk in before.walks], np.int64), edges.areas])
        self._areas = np.add.reduceat(own[order], starts[:-1])

    def outcome(self, minimum: int) -> tuple[_Open, Outlines]:
        """What is open after the strip, and the regions of at least `minimum` pixels that end in it."""
        closed, last = self._walks.closed, self._last_edges()
        holes = np.flatnonzero(closed & (self._areas < 0))
        owner = self._owners(holes, last[holes])
        held = owner[self._walks.chain_of[: self._known]]
        inside = np.zeros_like(self._areas)
        np.add.at(inside, owner[holes], self._areas[holes])
        np.add.at(inside, held, np.array([walk.holes_area for walk in self._before.walks], np.int64))
        pixels = self._areas + inside
        ends = np.flatnonzero(closed & (self._areas > 0) & (pixels >= minimum))
        ends = ends[np.argsort(last[ends])]
        wanted = ~closed
        wanted[ends] = True
        rings, chain = self._rings(np.concatenate([ends, holes[wanted[owner[holes]]]]))
        parts, owners, kept = [rings], [owner[chain]], _Held()
        for own, walk in zip(held.tolist(), self._before.walks, strict=True):
            if not closed[own]:
                kept.add(own, walk.holes)
            elif wanted[own]:
                parts += walk.holes
                owners += [np.full(len(part), own) for part in walk.holes]
        rings, owner = joined(parts), np.concatenate(owners)
        kept.add_each(rings, np.where(closed[owner], -1, owner))
        outlines = Outlines(self._values[ends], pixels[ends], *_in_order(rings, owner, ends))
        return self._open_after(np.flatnonzero(~closed), kept.holes, inside), outlines

    def _linked(self) -> tuple[_Sides, Indices]:
        """The north-going sides, and the node that follows each node."""
        edges, before, known = self._edges, self._before, self._known
        rows = edges.table[:, Y] - np.int64(self._y) + 1
        starts, ends = edges.table[:, START].astype(np.int64), edges.table[:, END].astype(np.int64)
        old, nodes = np.arange(known), known + np.arange(len(rows))

        def upper(columns: Indices, own: Indices, chosen: NDArray[np.bool_]) -> _Ends:
            return _Ends(
                np.concatenate([columns, own[chosen]]),
                np.concatenate([np.zeros_like(columns), rows[chosen]]),
                np.concatenate([old, nodes[chosen]]),
            )

        def lower(own: Indices, chosen: NDArray[np.bool_]) -> _Ends:
            return _Ends(own[chosen], rows[chosen], nodes[chosen])

        from_north, to_south = edges.from_north, edges.to_south
        north = _Sides.of(upper(before.heads, starts, from_north), lower(ends, ~to_south), self._height)
        south = _Sides.of(upper(before.tails, ends, to_south), lower(starts, ~from_north), self._height)
        following = np.arange(known + len(rows))
        following[north.lower] = north.upper
        following[south.upper] = south.lower
        return north, following

    @property
    def _height(self) -> np.int64:
        return np.int64(len(self._rows) + 1)

    def _last_edges(self) -> Indices:
        """(chains,): the place, row by row from the right, of the lowest and then leftmost edge of the strip."""
        width = self._rows.shape[1]
        places = (self._edges.table[:, Y] - np.int64(self._y)) * (width + 1) + width - self._edges.left
        places = np.concatenate([np.full(self._known, -1), places])
        last: Indices = np.maximum.reduceat(places[self._walks.order], self._walks.starts[:-1])
        return last

    def _owners(self, holes: Indices, last: Indices) -> Indices:
        """(chains,): the chain that bounds, directly or over other holes, the region around each hole; else itself.

        The pixel under a hole's last edge is the region's. Its row is followed to the left, to the region's side.
        """
        owner = np.arange(len(self._areas))
        if len(holes):
            width = self._rows.shape[1]
            y, x = last // (width + 1), width - last % (width + 1)
            needed, row = np.unique(y, return_inverse=True)
            rows = self._rows[needed]
            begins = np.ones(rows.shape, bool)
            begins[:, 1:] = rows[:, 1:] != rows[:, :-1]
            runs = np.flatnonzero(begins)
            left = runs[np.searchsorted(runs, row * width + x, "right") - 1] - row * width
            owner[holes] = self._walks.chain_of[self._north.above(left * self._height + y + 2)]
            while not np.array_equal(farther := owner[owner], owner):
                owner = farther
        return owner

    def _rings(self, chains: Indices) -> tuple[Rings, Indices]:
        """Those of closed chains, more than one of a chain that touches itself, and the chain that each is of."""
        mixed = self._mixed[chains]
        alone = ~mixed & ~self._touching[chains]
        places, starts = spread(self._walks.starts, chains[alone])
        plain = Rings(corners_of(self._table[places]), 2 * starts)
        rest = np.concatenate([chains[~mixed & ~alone], chains[mixed]])
        if not len(rest):
            return plain, chains[alone]
        places, starts = spread(self._walks.starts, chains[~mixed & ~alone])
        old = [np.concatenate(list(self._walk(chain).tables())) for chain in chains[mixed].tolist()]
        lengths = np.concatenate([np.diff(starts), np.array([len(table) for table in old], np.int64)])
        cut, walk = simple_rings(np.concatenate([self._table[places], *old]), starts_of(lengths))
        return joined([plain, cut]), np.concatenate([chains[alone], rest[walk]])

    def _walk(self, chain: int) -> _Walk:
        """The chain as a walk, without its holes."""
        start, end = self._walks.starts[chain : chain + 2].tolist()
        nodes = self._walks.order[start:end]
        parts: list[Table | _Walk] = []
        done = 0
        for index in np.flatnonzero(nodes < self._known).tolist() if self._mixed[chain] else ():
            if index > done:
                parts.append(self._table[start + done : start + index].copy())
            parts.append(self._before.walks[nodes[index]])
            done = index + 1
        if start + done < end:
            parts.append(self._table[start + done : end].copy())
        return _Walk(int(self._values[chain]), int(self._areas[chain]), parts)

    def _open_after(self, chains: Indices, holes: dict[int, list[Rings]], inside: Indices) -> _Open:
        """The open chains as walks, those that the strip left alone as they were; `inside` (chains,): holes' areas."""
        starts, order = self._walks.starts, self._walks.order
        first, final = order[starts[chains]], order[starts[chains + 1] - 1]
        grown: list[_Walk] = []
        for chain, node, alone in zip(chains.tolist(), first.tolist(), (first == final).tolist(), strict=True):
            walk = self._before.walks[node] if alone and node < self._known else self._walk(chain)
            walk.holes, walk.holes_area = holes.get(chain, []), int(inside[chain])
            grown.append(walk)
        heads = np.concatenate([self._before.heads, self._edges.table[:, START]])
        tails = np.concatenate([self._before.tails, self._edges.table[:, END]])
        return _Open(grown, heads[first], tails[final])


class _Held:
    """The holes that open chains hold so far, by chain."""

    def __init__(self) -> None:
        self.holes: dict[int, list[Rings]] = {}

    def add(self, chain: int, holes: list[Rings]) -> None:
        """The longest list is continued, not copied: a background takes in thousands of walks."""
        if holes:
            shorter, longer = sorted((holes, self.holes.get(chain, [])), key=len)
            longer += shorter
            self.holes[chain] = longer

    def add_each(self, rings: Rings, chains: Indices) -> None:
        """One chain for each ring; -1: none."""
        order = np.argsort(chains, kind="stable")
        order = order[np.searchsorted(chains[order], 0) :]
        names, begins = np.unique(chains[order], return_index=True)
        for name, (first, end) in zip(names.tolist(), pairwise([*begins.tolist(), len(order)]), strict=True):
            self.add(name, [rings.take(order[first:end])])


def _in_order(rings: Rings, owner: Indices, ends: Indices) -> tuple[Rings, Indices]:
    """The rings whose owner (rings,) is one of `ends`, in the order of these, and where each one's begin.

    The outside of each comes first, then its holes, by their first corners.
    """
    ranks = np.full(max(int(owner.max(initial=-1)), int(ends.max(initial=-1))) + 1, -1)
    ranks[ends] = np.arange(len(ends))
    rank, first = ranks[owner], rings.firsts
    order = np.lexsort((first[:, 0], first[:, 1], areas_of(rings.corners, rings.starts) < 0, rank))
    order = order[np.searchsorted(rank[order], 0) :]
    return rings.take(order), np.searchsorted(rank[order], np.arange(len(ends) + 1))

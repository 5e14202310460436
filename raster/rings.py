"""Rings of corners as the standards want them: none touches itself."""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from raster.edges import END, END_PINCHED, PINCHED, START, START_PINCHED, Table, Y

Ring = NDArray[np.int32]
"""(n, 2) corners (x, y) in pixel corners of the mask; the first is not repeated."""


@dataclass(frozen=True)
class Outline:
    """One connected component: its value, how many pixels it has, and its rings, the outside first.

    Every ring turns at every corner, has the region on its right hand (y down), and touches itself nowhere. The order
    of the holes and the first corners follow from the region alone.
    """

    value: int
    pixels: int
    rings: list[Ring]

    @property
    def polygon(self) -> shapely.Polygon:
        return shapely.Polygon(self.rings[0], self.rings[1:])


def outline(value: int, pixels: int, rings: list[Ring]) -> Outline:
    """The component with these rings: those of its outside, which comes first, and of its holes in any order."""
    outside, *holes = rings
    holes.sort(key=lambda ring: (int(ring[0, 1]), int(ring[0, 0])))
    return Outline(value, pixels, [outside, *holes])


def corners_of(table: Table) -> Ring:
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


def simple_rings(table: Table) -> list[Ring]:
    """A closed walk as rings that pass every corner once: of an outside what it encloses by touching itself is a hole.

    It begins with its highest, leftmost edge, and so do the rings, the outside first.
    """
    corners, flags = corners_of(table), table[:, PINCHED]
    pinched = np.empty(len(corners), bool)
    pinched[0::2], pinched[1::2] = flags & START_PINCHED > 0, flags & END_PINCHED > 0
    places = np.flatnonzero(pinched)
    names = (corners[places, 1] * (np.int64(1) << 32) + corners[places, 0]).tolist()
    visits = Counter(names)
    if len(visits) == len(names):
        return [corners]
    twice = [index for index, name in enumerate(names) if visits[name] > 1]
    loops = _loops(corners, places[twice].tolist(), [names[index] for index in twice])
    rings = [(area_of(loop), loop) for loop in loops]
    return [_turned(ring, area) for area, ring in sorted(rings, key=lambda pair: pair[0] < 0)]


def _loops(corners: Ring, places: list[int], names: list[int]) -> list[Ring]:
    """The ring cut where it comes back to a corner; `names` of the corners at `places` come twice each, well nested."""
    arcs = [corners[a:b] for a, b in pairwise(places)]
    arcs.append(np.concatenate([corners[places[-1] :], corners[: places[0]]]))
    loops: list[Ring] = []
    path: list[Ring] = []
    depths: dict[int, int] = {}
    for name, arc in zip(names, arcs, strict=True):
        depth = depths.setdefault(name, len(path))
        if depth < len(path):
            loops.append(np.concatenate(path[depth:]))
            del path[depth:]
        path.append(arc)
    loops.append(np.concatenate(path))
    return loops


def _turned(ring: Ring, area: int) -> Ring:
    """The ring from the corner at which a walk enters its highest, leftmost edge."""
    highest = np.flatnonzero(ring[:, 1] == ring[:, 1].min())
    first = int(highest[ring[highest, 0].argmin()]) - (area < 0)
    return np.concatenate([ring[first:], ring[:first]])


def area_of(ring: NDArray[np.integer[Any]]) -> int:
    """Pixels that the ring goes round, negative for a hole."""
    x, y = ring[:, 0].astype(np.int64), ring[:, 1].astype(np.int64)
    twice = x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1]
    return int(twice) // 2

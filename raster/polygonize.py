"""Polygons of equal class, exact and whole, out of a mask that is never in memory.

The mask is read tile by tile. A component that touches no inner tile border is finished at once; the others stay open
and are joined across the borders by union-find, until the front, the last row of tiles, has passed them. So memory
follows the open components, not the mask. 4-connectivity: components that touch at a corner only stay apart, which is
what keeps polygons valid. Holes that touch no inner tile border wait beside the pieces and take no part in the union.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray

from foveate.schema import NODATA
from raster.components import Components, label_components
from raster.geometry import Region, Size

TILE = 1024

Ring = NDArray[np.float64]
"""(n, 2) corners (x, y), the last one equal to the first."""

_NONE = -1


@dataclass(frozen=True)
class Outline:
    """One connected component: its value, how many pixels it has, and its polygon in pixel corners of the mask."""

    value: int
    pixels: int
    polygon: shapely.Polygon


@dataclass
class _Open:
    """A component that the tiles to come may still enlarge."""

    value: int
    pixels: int
    pieces: list[shapely.Polygon] = field(default_factory=list)
    holes: list[Ring] = field(default_factory=list)

    def absorb(self, other: "_Open") -> None:
        self.pixels += other.pixels
        self.pieces += other.pieces
        self.holes += other.holes

    def closed(self) -> Outline:
        whole = self.pieces[0] if len(self.pieces) == 1 else shapely.union_all(self.pieces)
        rings = [_without_collinear(shapely.get_coordinates(ring)) for ring in (whole.exterior, *whole.interiors)]
        return Outline(self.value, self.pixels, shapely.Polygon(rings[0], rings[1:] + self.holes))


def outlines(
    size: Size, read: Callable[[Region], NDArray[np.uint8]], minimum: Callable[[], int], tile: int = TILE
) -> Iterator[Outline]:
    """The components of a mask with at least `minimum()` pixels, in the order in which they close; never those of 255.

    read: gives the values of a region, uint8 (height, width). minimum: asked again for every tile, so that it may rise.
    """
    front = _Front(size)
    for y in range(0, size.height, tile):
        for x in range(0, size.width, tile):
            region = Region(x, y, tile, tile).intersection(Region.of(size))
            values = read(region)
            if values.min() == NODATA:
                front.skip(region)
                continue
            yield from front.add(region, label_components(values), minimum())
        for outline in front.passed(last=y + tile >= size.height):
            if outline.pixels >= minimum():
                yield outline


class _Front:
    """The open components, and which of them lie along the last row of tiles and the last tile's right side."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._open: dict[int, _Open] = {}
        self._parents: dict[int, int] = {}
        self._next = 0
        self._above = np.full(size.width, _NONE, dtype=np.int64)
        self._left = np.empty(0, dtype=np.int64)

    def skip(self, region: Region) -> None:
        """Pass a tile that holds no class."""
        self._above[region.x : region.x1] = _NONE
        self._left = np.full(region.height, _NONE, dtype=np.int64)

    def add(self, region: Region, components: Components, minimum: int) -> Iterator[Outline]:
        """Take a tile in; gives its components that are complete."""
        labels = components.labels
        on_border = np.zeros(len(components.values), dtype=bool)
        for side in self._inner_sides(region, labels):
            on_border[side] = True
        examined = components.values != NODATA
        open_labels = np.flatnonzero(on_border & examined)
        numbers = np.full(len(components.values), _NONE, dtype=np.int64)
        numbers[open_labels] = np.arange(self._next, self._next + len(open_labels))
        wanted = examined & (on_border | (components.areas >= minimum))
        for label, polygon in _polygons(region, labels, wanted):
            grown = _Open(int(components.values[label]), int(components.areas[label]))
            if on_border[label]:
                shell, grown.holes = _without_private_holes(polygon, region)
                grown.pieces.append(shell)
                number = int(numbers[label])
                self._open[number] = grown
                self._parents[number] = number
            else:
                yield Outline(grown.value, grown.pixels, polygon)
        self._next += len(open_labels)
        self._join(region, numbers[labels[0]], numbers[labels[:, 0]])
        self._above[region.x : region.x1] = numbers[labels[-1]]
        self._left = numbers[labels[:, -1]]

    def passed(self, last: bool) -> Iterator[Outline]:
        """The components that no tile to come can reach, once a row of tiles is complete."""
        present, where = np.unique(self._above, return_inverse=True)
        roots = [_NONE if number == _NONE else self._root(number) for number in present.tolist()]
        self._above = np.array(roots, dtype=np.int64)[where]
        alive = set() if last else set(roots)
        for number in [number for number in self._open if number not in alive]:
            yield self._open.pop(number).closed()
        self._parents = {number: number for number in self._open}

    def _inner_sides(self, region: Region, labels: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
        if region.y > 0:
            yield labels[0]
        if region.y1 < self._size.height:
            yield labels[-1]
        if region.x > 0:
            yield labels[:, 0]
        if region.x1 < self._size.width:
            yield labels[:, -1]

    def _join(self, region: Region, top: NDArray[np.int64], left: NDArray[np.int64]) -> None:
        if region.y > 0:
            self._join_side(self._above[region.x : region.x1], top)
        if region.x > 0:
            self._join_side(self._left, left)

    def _join_side(self, before: NDArray[np.int64], after: NDArray[np.int64]) -> None:
        both = (before != _NONE) & (after != _NONE)
        for a, b in np.unique(np.stack([before[both], after[both]], axis=1), axis=0).tolist():
            root, other = self._root(a), self._root(b)
            if root != other and self._open[root].value == self._open[other].value:
                if len(self._open[root].pieces) < len(self._open[other].pieces):
                    root, other = other, root
                self._open[root].absorb(self._open.pop(other))
                self._parents[other] = root

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number


def _polygons(
    region: Region, labels: NDArray[np.int32], wanted: NDArray[np.bool_]
) -> Iterator[tuple[int, shapely.Polygon]]:
    """(label, polygon) of the wanted components, in the mask's pixel corners."""
    if not wanted.any():
        return
    origin = np.array([region.x, region.y], dtype=np.float64)
    for geometry, label in rasterio.features.shapes(labels, mask=wanted[labels], connectivity=4):
        rings = [np.asarray(ring) + origin for ring in geometry["coordinates"]]
        polygon = shapely.Polygon(rings[0], rings[1:])
        if not polygon.is_valid:
            # GDAL lets a ring touch itself at a corner; the standard wants two rings there.
            polygon = shapely.make_valid(polygon)
        yield int(label), polygon


def _without_private_holes(polygon: shapely.Polygon, region: Region) -> tuple[shapely.Polygon, list[Ring]]:
    """The polygon with only those holes that touch the tile's border, and the other holes."""
    shared: list[Ring] = []
    private: list[Ring] = []
    for interior in polygon.interiors:
        ring = shapely.get_coordinates(interior)
        (x0, y0), (x1, y1) = ring.min(axis=0), ring.max(axis=0)
        inside = region.x < x0 and region.y < y0 and x1 < region.x1 and y1 < region.y1
        (private if inside else shared).append(ring)
    if not private:
        return polygon, []
    return shapely.Polygon(polygon.exterior, shared), private


def _without_collinear(ring: Ring) -> Ring:
    """The ring without the corners at which it does not turn; its sides are parallel to the axes."""
    corners = ring[:-1]
    before = corners - np.roll(corners, 1, axis=0)
    after = np.roll(corners, -1, axis=0) - corners
    turning = corners[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return np.concatenate([turning, turning[:1]])

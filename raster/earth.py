"""Pixel polygons on the Earth: longitude and latitude as RFC 7946 wants them."""

import functools
from collections.abc import Sequence

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes

from raster.bends import deviations, refined
from raster.geometry import Size
from raster.georeference import Georeference
from raster.globe import Coordinates, on_globe, polygons_of, unwrapped
from raster.places import Places, ground_of, on_earth
from raster.smooth import SmoothPlaces

__all__ = ["EarthPlacement", "on_earth"]

_FINEST_PIXEL = 5e-7
_DECIMALS, _FINE_DECIMALS = 7, 9
_EVEN = 1 / 8
_WIDEST = 20.0
_OUTERMOST = (179.0, 80.0)
"""Of an even placement: pixels by which corners may be off, the span in degrees, and the farthest place."""
_LONGEST, _SHORTEST = 64, 4
"""Pixels of a piece of a side, between which the survey chooses; where the shortest is bent, each side is measured."""
_EXACT = 1e-3
"""Of the last decimal: by how much a polynomial that stands for the projection may leave it."""
_SURVEYED = 17
_CELLS = 1024
"""Into which the longer side of an image is cut to find where it has a place on the map."""


class EarthPlacement:
    """Turns polygons in level-0 pixels into polygons in degrees: cut at the antimeridian, valid after rounding.

    Sides are cut into short pieces first, since a straight side of pixels is a curve in degrees, and neighbours with
    other corners would cross it. 7 decimals, 9 where a pixel is smaller than 5e-7 degrees. What of a polygon has no
    place, as the corners of a satellite's full disk, is cut away.

    `even`: antimeridian and poles are far, and no corner leaves its place by more than an eighth of a pixel, rounding
    and straight sides included. Then valid rings of pixels are valid rings of degrees, corner by corner, and
    `place_rings` does for many what `place` does for one.
    """

    def __init__(self, georeference: Georeference, size: Size) -> None:
        ground = ground_of(georeference)
        if ground is None:
            raise ValueError("the georeference is not on Earth")
        self._places = Places(ground, size)
        self._size = size
        step = max(1, max(size.width, size.height) // 16)
        self._step = step if ground.is_degrees else min(step, _LONGEST)
        self.decimals = self._decimals(size)
        self._straight, self.even, self._mirrored = self._survey(size)
        if ground.affine is None:
            self.even = False
        if not self._straight:
            self._places.pass_poles_by()
        unit = 10.0**-self.decimals
        self._quick = SmoothPlaces.fitted(self._places, size, _EXACT * unit) if self.even else None

    def place(self, polygon: shapely.Polygon) -> list[shapely.Polygon]:
        """The parts of `polygon` in degrees, exterior rings counter-clockwise; empty if nothing of it is on the map."""
        rings = self._rings(polygon)
        if all(np.isfinite(ring).all() for ring in rings):
            return self._parts(rings)
        placed = [self._rings(part) for part in polygons_of(shapely.intersection(polygon, self._on_map))]
        # A side between two corners that have a place may still leave the map.
        kept = [[ring[np.isfinite(ring).all(axis=1)] for ring in rings] for rings in placed]
        return [part for rings in kept for part in self._parts(rings)]

    def _rings(self, polygon: shapely.Polygon) -> list[Coordinates]:
        """The outside and the holes in degrees, with what they bound to their left; corners without a place are inf."""
        rings = []
        for ring in (polygon.exterior, *polygon.interiors):
            corners = shapely.get_coordinates(ring)
            if shapely.is_ccw(ring) == self._mirrored:
                corners = corners[::-1]
            pieces, _ = _in_pieces(corners, np.array([0, len(corners)]), self._step)
            rings.append(self._places(pieces) if self._straight else refined(self._places, pieces))
        return rings

    def _parts(self, rings: Sequence[Coordinates]) -> list[shapely.Polygon]:
        if len(rings[0]) < 4:
            return []
        exterior, *holes = [unwrapped(ring) for ring in rings if len(ring) >= 4]
        return [shapely.geometry.polygon.orient(part, 1.0) for part in self._rounded(on_globe(exterior, holes))]

    @functools.cached_property
    def _on_map(self) -> shapely.Geometry:
        """Where the image has a place on the map, in level-0 pixels: the cells of a grid whose corners all have one."""
        width, height = self._size.width, self._size.height
        cell = -(-max(width, height) // _CELLS)
        x, y = (np.minimum(np.arange(-(-side // cell) + 1) * cell, side) for side in (width, height))
        corners = np.stack(np.meshgrid(x, y), axis=-1)
        degrees = self._places(corners.reshape(-1, 2)).reshape(corners.shape)
        placed = np.isfinite(degrees[..., 0]) & np.isfinite(degrees[..., 1])
        whole = placed[:-1, :-1] & placed[:-1, 1:] & placed[1:, :-1] & placed[1:, 1:]
        found = shapes(whole.astype(np.uint8), mask=whole, transform=Affine.scale(cell))
        return shapely.union_all([shapely.geometry.shape(shape) for shape, _ in found])

    def place_rings(
        self, corners: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Closed rings of pixels, ring k being corners[starts[k] : starts[k + 1]], as closed rings of degrees.

        In units of 10^-decimals, with the starts of the rings; outsides that went clockwise on the image, and holes
        that went the other way, come out as RFC 7946 wants them. For an `even` placement.
        """
        points, starts = _in_pieces(corners, starts, self._step)
        fixed = np.rint((self._quick or self._places)(points) * 10.0**self.decimals).astype(np.int64)
        return (fixed[_backwards(starts)] if self._mirrored else fixed), starts

    def _survey(self, size: Size) -> tuple[bool, bool, bool]:
        """Whether sides cut at the step, which it chooses, are straight, the placement even, and the image mirrored."""
        axes = (np.linspace(0, side, _SURVEYED) for side in (size.width, size.height))
        grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        here, right, below = (self._places(grid + np.array(shift)) for shift in ((0, 0), (1, 0), (0, 1)))
        with np.errstate(invalid="ignore"):
            pixels = np.stack([right - here, below - here], axis=2)
            pixels[:, 0] -= 360 * np.round(pixels[:, 0] / 360)
        placed = np.isfinite(pixels).all(axis=(1, 2))
        turns = np.linalg.det(pixels[placed])
        mirrored = bool(np.count_nonzero(turns < 0) > np.count_nonzero(turns > 0))
        if not placed.all() or self._places.poles_in(size):
            return False, False, mirrored
        off = self._bend(grid, here)
        while off >= _EVEN and self._step >= 2 * _SHORTEST:
            self._step //= 2
            off = self._bend(grid, here)
        far = np.ptp(here, axis=0).max() > _WIDEST or (np.abs(here).max(axis=0) > _OUTERMOST).any()
        if far or not (np.all(turns > 0) or np.all(turns < 0)):
            return off < _EVEN, False, mirrored
        rounded = np.abs(np.linalg.inv(pixels)).sum(axis=2).max() * 10.0**-self.decimals / 2
        return off < _EVEN, bool(rounded + off < _EVEN), mirrored

    def _bend(self, grid: Coordinates, here: Coordinates) -> float:
        """Pixels by which a side of one step leaves its place, at the most; along x and y, from 17 x 17 places."""
        found = 0.0
        for shift in ((self._step, 0), (0, self._step)):
            end = grid + np.array(shift)
            off, _, _ = deviations(self._places, grid, end, here, self._places(end))
            found = max(found, float(off.max()))
        return found

    def _rounded(self, geometry: shapely.Geometry) -> list[shapely.Polygon]:
        rounded = shapely.transform(geometry, lambda points: np.round(points, self.decimals))
        if not rounded.is_valid:
            rounded = shapely.set_precision(shapely.make_valid(geometry), 10.0**-self.decimals)
        return [part for part in polygons_of(rounded) if part.area > 0]

    def _decimals(self, size: Size) -> int:
        middle = np.array([[0, 0], [1, 1]]) + np.array([size.width // 2, size.height // 2])
        with np.errstate(invalid="ignore"):
            pixel = np.diff(unwrapped(self._places(middle)), axis=0)
        return _FINE_DECIMALS if np.abs(pixel).max() < _FINEST_PIXEL else _DECIMALS


def _in_pieces(
    corners: NDArray[np.int64] | Coordinates, starts: NDArray[np.int64], step: float
) -> tuple[Coordinates, NDArray[np.int64]]:
    """Closed rings with their sides cut into equal pieces no longer than `step`."""
    # Axis by axis: along an axis of two numpy takes the larger one slowly.
    sides = np.zeros(len(corners), corners.dtype)
    sides[:-1] = np.maximum(*(np.abs(np.diff(corners[:, axis])) for axis in (0, 1)))
    sides[starts[1:] - 1] = 0
    points = corners.astype(np.float64)
    if sides.max(initial=0) <= step:
        return points, starts
    pieces = np.maximum(np.ceil(sides / step), 1).astype(np.int64)
    first = np.cumsum(pieces) - pieces
    share = (np.arange(pieces.sum()) - np.repeat(first, pieces)) / np.repeat(pieces, pieces)
    side = np.repeat(np.diff(points, axis=0, append=points[-1:]), pieces, axis=0)
    return np.repeat(points, pieces, axis=0) + share[:, None] * side, np.append(first, pieces.sum())[starts]


def _backwards(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of the rings' corners with every ring turned round."""
    lengths = np.diff(starts)
    return np.repeat(starts[:-1] + starts[1:] - 1, lengths) - np.arange(starts[-1])

"""Pixel polygons on the Earth: longitude and latitude as RFC 7946 wants them."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.features import shapes

from raster.gcps import Polynomial, turn_of
from raster.geometry import Size
from raster.georeference import Georeference

Coordinates = NDArray[np.float64]
"""(n, 2): x, y."""
ToGround = Callable[[Coordinates, Coordinates], tuple[Coordinates, Coordinates]]
"""Columns and rows, (n,), to x and y of a CRS."""

_EARTH_RADIUS_M = 6_371_000
_FINEST_PIXEL = 5e-7
_DECIMALS, _FINE_DECIMALS = 7, 9
_EVEN = 1 / 8
_WIDEST = 20.0
_OUTERMOST = (179.0, 80.0)
"""Of an even placement: pixels by which corners may be off, the span in degrees, and the farthest place."""
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
        place = _place_of(georeference)
        if place is None:
            raise ValueError("the georeference is not on Earth")
        crs, self._to_ground, self._to_degrees = place
        self._size = size
        step = max(1, max(size.width, size.height) // 16)
        self._step = step if crs.is_geographic and not georeference.gcps else min(step, 64)
        self.decimals = self._decimals(size)
        even, self._mirrored = self._survey(size)
        self.even = even and not georeference.gcps

    def place(self, polygon: shapely.Polygon) -> list[shapely.Polygon]:
        """The parts of `polygon` in degrees, exterior rings counter-clockwise; empty if nothing of it is on the map."""
        rings = self._rings(polygon)
        if all(np.isfinite(ring).all() for ring in rings):
            return self._parts(rings)
        placed = [self._rings(part) for part in _polygons_of(shapely.intersection(polygon, self._on_map))]
        # A side between two corners that have a place may still leave the map.
        kept = [[ring[np.isfinite(ring).all(axis=1)] for ring in rings] for rings in placed]
        return [part for rings in kept for part in self._parts(rings)]

    def _rings(self, polygon: shapely.Polygon) -> list[Coordinates]:
        """The outside and the holes in degrees; corners without a place are not finite."""
        x0, y0, x1, y1 = polygon.bounds
        # Most regions are small, and none of their sides can need more corners.
        dense = polygon if max(x1 - x0, y1 - y0) <= self._step else shapely.segmentize(polygon, self._step)
        return [self._degrees(shapely.get_coordinates(ring)) for ring in (dense.exterior, *dense.interiors)]

    def _parts(self, rings: Sequence[Coordinates]) -> list[shapely.Polygon]:
        if len(rings[0]) < 4:
            return []
        exterior, *holes = [_unwrapped(ring) for ring in rings if len(ring) >= 4]
        return [shapely.geometry.polygon.orient(part, 1.0) for part in self._rounded(_on_globe(exterior, holes))]

    @functools.cached_property
    def _on_map(self) -> shapely.Geometry:
        """Where the image has a place on the map, in level-0 pixels: the cells of a grid whose corners all have one."""
        width, height = self._size.width, self._size.height
        cell = -(-max(width, height) // _CELLS)
        x, y = (np.minimum(np.arange(-(-side // cell) + 1) * cell, side) for side in (width, height))
        corners = np.stack(np.meshgrid(x, y), axis=-1)
        degrees = self._degrees(corners.reshape(-1, 2)).reshape(corners.shape)
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
        fixed = np.rint(self._degrees(points) * 10.0**self.decimals).astype(np.int64)
        return (fixed[_backwards(starts)] if self._mirrored else fixed), starts

    def _survey(self, size: Size) -> tuple[bool, bool]:
        """Whether the placement is even and mirrored, from 17 x 17 places: a side is bent most in its middle."""
        grid = np.meshgrid(np.linspace(0, size.width, 17), np.linspace(0, size.height, 17))
        places = np.stack(grid, axis=-1).reshape(-1, 2)
        step = self._step
        shifts = [(0, 0), (1, 0), (0, 1), (step / 2, 0), (step, 0), (0, step / 2), (0, step)]
        found = [self._degrees(places + np.array(shift)) for shift in shifts]
        if not all(np.isfinite(points).all() for points in found):
            return False, False
        here, right, below, *sides = found
        far = np.ptp(here, axis=0).max() > _WIDEST or (np.abs(here).max(axis=0) > _OUTERMOST).any()
        pixels = np.stack([right - here, below - here], axis=2)
        turns = np.linalg.det(pixels)
        if far or not (np.all(turns > 0) or np.all(turns < 0)):
            return False, False
        inverse = np.linalg.inv(pixels)
        rounded = np.abs(inverse).sum(axis=2).max() * 10.0**-self.decimals / 2
        bent = [middle - (here + end) / 2 for middle, end in (sides[:2], sides[2:])]
        off = max(float(np.abs(inverse @ vector[..., None]).max()) for vector in bent)
        return bool(rounded + off < _EVEN), bool(turns[0] < 0)

    def _degrees(self, pixels: Coordinates) -> Coordinates:
        """(n, 2); not finite where a place is not on the map."""
        x, y = self._to_degrees.transform(*self._to_ground(pixels[:, 0], pixels[:, 1]))
        return np.stack([x, y], axis=1)

    def _rounded(self, geometry: shapely.Geometry) -> list[shapely.Polygon]:
        rounded = shapely.transform(geometry, lambda points: np.round(points, self.decimals))
        if not rounded.is_valid:
            rounded = shapely.set_precision(shapely.make_valid(geometry), 10.0**-self.decimals)
        return [part for part in _polygons_of(rounded) if part.area > 0]

    def _decimals(self, size: Size) -> int:
        middle = np.array([[0, 0], [1, 1]]) + np.array([size.width // 2, size.height // 2])
        corners = self._degrees(middle)
        fine = bool(np.abs(corners[1] - corners[0]).max() < _FINEST_PIXEL)
        return _FINE_DECIMALS if fine else _DECIMALS


def on_earth(georeference: Georeference) -> bool:
    """Whether the georeference gives each pixel a place on the Earth, so that an EarthPlacement can be made of it."""
    return _place_of(georeference) is not None


def _place_of(georeference: Georeference) -> tuple[pyproj.CRS, ToGround, pyproj.Transformer] | None:
    """The CRS, the way to it from pixels and the way from it to degrees; None where one of them is missing."""
    crs = _crs_on_earth(georeference.crs)
    to_ground = None if crs is None else _pixel_to_ground(georeference, crs)
    if crs is None or to_ground is None:
        return None
    try:
        return crs, to_ground, pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    except ProjError:
        return None


def _crs_on_earth(wkt: str | None) -> pyproj.CRS | None:
    if wkt is None:
        return None
    try:
        crs = pyproj.CRS.from_wkt(wkt)
    except ProjError:
        return None
    geodetic = crs.geodetic_crs
    # x and y of a geocentric system are metres from the Earth's centre, and leave out the third.
    if geodetic is None or geodetic.ellipsoid is None or crs.is_geocentric:
        return None
    radius = geodetic.ellipsoid.semi_major_metre
    return crs if abs(radius / _EARTH_RADIUS_M - 1) < 0.01 else None


def _pixel_to_ground(georeference: Georeference, crs: pyproj.CRS) -> ToGround | None:
    """Columns and rows (corner convention) to the CRS: the affine transform, or the polynomial of the GCPs, if any."""
    if georeference.gcps:
        return Polynomial.fitted(georeference.gcps, turn_of(crs))
    if georeference.transform is None:
        return None
    a, b, c, d, e, f = georeference.transform
    return lambda columns, rows: (a * columns + b * rows + c, d * columns + e * rows + f)


def _in_pieces(
    corners: NDArray[np.int64], starts: NDArray[np.int64], step: float
) -> tuple[Coordinates, NDArray[np.int64]]:
    """Closed rings with their sides cut into equal pieces no longer than `step`."""
    pieces = np.ones(len(corners), np.int64)
    pieces[:-1] = np.maximum(-(-np.abs(np.diff(corners, axis=0)).max(axis=1) // step), 1)
    pieces[starts[1:] - 1] = 1
    points = corners.astype(np.float64)
    if pieces.max() == 1:
        return points, starts
    first = np.cumsum(pieces) - pieces
    share = (np.arange(pieces.sum()) - np.repeat(first, pieces)) / np.repeat(pieces, pieces)
    side = np.repeat(np.diff(points, axis=0, append=points[-1:]), pieces, axis=0)
    return np.repeat(points, pieces, axis=0) + share[:, None] * side, np.append(first, pieces.sum())[starts]


def _backwards(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of the rings' corners with every ring turned round."""
    lengths = np.diff(starts)
    return np.repeat(starts[:-1] + starts[1:] - 1, lengths) - np.arange(starts[-1])


def _unwrapped(ring: Coordinates) -> Coordinates:
    """The ring without jumps of 360 degrees from corner to corner; equal corners stay equal to the last bit."""
    turns = np.round((np.unwrap(ring[:, 0], period=360) - ring[:, 0]) / 360)
    return np.stack([ring[:, 0] + 360 * turns, ring[:, 1]], axis=1)


def _on_globe(exterior: Coordinates, holes: Sequence[Coordinates]) -> shapely.Geometry:
    """What the unwrapped rings bound, between -180 and 180 degrees: cut at the antimeridian, but nowhere else."""
    if not any(map(_goes_round, (exterior, *holes))):
        shape = shapely.Polygon(exterior, [_brought_inside(hole, exterior) for hole in holes])
        first, last = _turns(shape)
        if first == last:
            return _moved(shape, -first)
    return shapely.difference(_wrapped(exterior), shapely.union_all([_wrapped(hole) for hole in holes]))


def _goes_round(ring: Coordinates) -> bool:
    """Whether the ring goes once round the Earth, and a pole with it."""
    return bool(abs(ring[-1, 0] - ring[0, 0]) >= 180)


def _brought_inside(hole: Coordinates, exterior: Coordinates) -> Coordinates:
    """The hole, moved by whole turns until it starts right of the exterior's west end."""
    turns = float(np.ceil((exterior[:, 0].min() - hole[:, 0].min() - 1e-6) / 360))
    return np.stack([hole[:, 0] + 360 * turns, hole[:, 1]], axis=1)


def _wrapped(ring: Coordinates) -> shapely.Geometry:
    """What one ring bounds, between -180 and 180 degrees; what goes round the Earth reaches up to the pole."""
    if _goes_round(ring):
        pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
        ring = np.concatenate([ring, [[ring[-1, 0], pole], [ring[0, 0], pole], ring[0]]])
    polygon = shapely.Polygon(ring)
    whole = polygon if polygon.is_valid else shapely.make_valid(polygon)
    first, last = _turns(polygon)
    worlds = [(turn, shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)) for turn in range(first, last + 1)]
    # Together, for where a ring begins they may share a side.
    return shapely.union_all([_moved(shapely.intersection(whole, world), -turn) for turn, world in worlds])


def _turns(polygon: shapely.Polygon) -> tuple[int, int]:
    """How many turns east of -180..180 the polygon begins and ends."""
    west, _, east, _ = polygon.bounds
    return int((west + 180 + 1e-9) // 360), int((east + 180 - 1e-9) // 360)


def _moved(geometry: shapely.Geometry, turns: int) -> shapely.Geometry:
    return shapely.transform(geometry, lambda points: points + np.array([360.0 * turns, 0]))


def _polygons_of(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    return [part for part in shapely.get_parts(geometry).tolist() if isinstance(part, shapely.Polygon)]

"""Pixel polygons on the Earth: longitude and latitude as RFC 7946 wants them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyproj
import rasterio.transform
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.control import GroundControlPoint

from raster.geometry import Size
from raster.georeference import Georeference

Coordinates = NDArray[np.float64]
"""(n, 2): x, y."""

_EARTH_RADIUS_M = 6_371_000
_FINEST_PIXEL = 5e-7
_DECIMALS, _FINE_DECIMALS = 7, 9


class EarthPlacement:
    """Turns polygons in level-0 pixels into polygons in degrees: cut at the antimeridian, valid after rounding.

    Sides are cut into short pieces first, since a straight side of pixels is a curve in degrees, and neighbours with
    other corners would cross it. 7 decimals, 9 where a pixel is smaller than 5e-7 degrees.
    """

    def __init__(self, georeference: Georeference, size: Size) -> None:
        crs = _crs_on_earth(georeference.crs)
        if crs is None:
            raise ValueError("the georeference is not on Earth")
        self._to_ground = _pixel_to_ground(georeference)
        self._to_degrees = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
        step = max(1, max(size.width, size.height) // 16)
        self._step = step if crs.is_geographic and not georeference.gcps else min(step, 64)
        self.decimals = self._decimals(size)

    def place(self, polygon: shapely.Polygon) -> list[shapely.Polygon]:
        """The parts of `polygon` in degrees, exterior rings counter-clockwise; empty if nothing of it is on the map."""
        x0, y0, x1, y1 = polygon.bounds
        # Most regions are small, and none of their sides can need more corners.
        dense = polygon if max(x1 - x0, y1 - y0) <= self._step else shapely.segmentize(polygon, self._step)
        rings = [self._degrees(shapely.get_coordinates(ring)) for ring in (dense.exterior, *dense.interiors)]
        exterior = _closed_over_pole(_unwrapped(rings[0]))
        if len(exterior) < 4:
            return []
        holes = [_brought_inside(_unwrapped(ring), exterior) for ring in rings[1:] if len(ring) >= 4]
        parts = []
        for world, shift in _cut(shapely.Polygon(exterior, holes)):
            moved = shapely.transform(world, lambda points, shift=shift: points + np.array([shift, 0]))
            parts += [shapely.geometry.polygon.orient(part, 1.0) for part in self._rounded(moved)]
        return parts

    def _degrees(self, pixels: Coordinates) -> Coordinates:
        x, y = self._to_degrees.transform(*self._to_ground(pixels[:, 0], pixels[:, 1]))
        points = np.stack([x, y], axis=1)
        finite: Coordinates = points[np.isfinite(points).all(axis=1)]
        return finite

    def _rounded(self, geometry: shapely.Geometry) -> list[shapely.Polygon]:
        rounded = shapely.transform(geometry, lambda points: np.round(points, self.decimals))
        if not rounded.is_valid:
            rounded = shapely.set_precision(shapely.make_valid(geometry), 10.0**-self.decimals)
        return [part for part in _polygons_of(rounded) if part.area > 0]

    def _decimals(self, size: Size) -> int:
        middle = np.array([[0, 0], [1, 1]]) + np.array([size.width // 2, size.height // 2])
        corners = self._degrees(middle)
        fine = len(corners) == 2 and bool(np.abs(corners[1] - corners[0]).max() < _FINEST_PIXEL)
        return _FINE_DECIMALS if fine else _DECIMALS


def on_earth(georeference: Georeference) -> bool:
    """Whether the georeference gives each pixel a place on the Earth."""
    placed = georeference.transform is not None or bool(georeference.gcps)
    return placed and _crs_on_earth(georeference.crs) is not None


def _crs_on_earth(wkt: str | None) -> pyproj.CRS | None:
    if wkt is None:
        return None
    try:
        crs = pyproj.CRS.from_wkt(wkt)
    except ProjError:
        return None
    geodetic = crs.geodetic_crs
    if geodetic is None or geodetic.ellipsoid is None:
        return None
    radius = geodetic.ellipsoid.semi_major_metre
    return crs if abs(radius / _EARTH_RADIUS_M - 1) < 0.01 else None


def _pixel_to_ground(
    georeference: Georeference,
) -> Callable[[Coordinates, Coordinates], tuple[Any, Any]]:
    """Columns and rows (corner convention) to the CRS: the affine transform, or GDAL's polynomial of the GCPs."""
    if georeference.gcps:
        points = [GroundControlPoint(col=c, row=r, x=x, y=y, z=z) for c, r, x, y, z in georeference.gcps]
        polynomial = rasterio.transform.GCPTransformer(points)

        def by_points(columns: Coordinates, rows: Coordinates) -> tuple[Any, Any]:
            x, y = polynomial.xy(rows, columns, offset="ul")
            return np.asarray(x), np.asarray(y)

        return by_points
    assert georeference.transform is not None
    a, b, c, d, e, f = georeference.transform
    return lambda columns, rows: (a * columns + b * rows + c, d * columns + e * rows + f)


def _unwrapped(ring: Coordinates) -> Coordinates:
    """The ring without jumps of 360 degrees from corner to corner; equal corners stay equal to the last bit."""
    turns = np.round((np.unwrap(ring[:, 0], period=360) - ring[:, 0]) / 360)
    return np.stack([ring[:, 0] + 360 * turns, ring[:, 1]], axis=1)


def _closed_over_pole(ring: Coordinates) -> Coordinates:
    """A ring that went once round the Earth is closed along the pole that it encloses."""
    if len(ring) == 0 or abs(ring[-1, 0] - ring[0, 0]) < 180:
        return ring
    pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
    return np.concatenate([ring, [[ring[-1, 0], pole], [ring[0, 0], pole], ring[0]]])


def _brought_inside(hole: Coordinates, exterior: Coordinates) -> Coordinates:
    """The hole, moved by whole turns until it starts right of the exterior's west end."""
    turns = float(np.ceil((exterior[:, 0].min() - hole[:, 0].min() - 1e-6) / 360))
    return np.stack([hole[:, 0] + 360 * turns, hole[:, 1]], axis=1)


def _cut(polygon: shapely.Polygon) -> Iterator[tuple[shapely.Geometry, float]]:
    """The pieces of the polygon between the antimeridians, and what brings each back to -180..180."""
    west, _, east, _ = polygon.bounds
    first, last = int((west + 180 + 1e-9) // 360), int((east + 180 - 1e-9) // 360)
    if first == last:
        yield polygon, -360.0 * first
        return
    whole = polygon if polygon.is_valid else shapely.make_valid(polygon)
    for turn in range(first, last + 1):
        yield shapely.intersection(whole, shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)), -360.0 * turn


def _polygons_of(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    return [part for part in shapely.get_parts(geometry).tolist() if isinstance(part, shapely.Polygon)]

"""The way from pixels to longitude and latitude, and where it leads beyond the map."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.enums import TransformDirection
from pyproj.exceptions import ProjError

from raster.gcps import Polynomial, turn_of
from raster.geometry import Size
from raster.georeference import Georeference, Transform
from raster.globe import Coordinates, unwrapped

__all__ = ["Ground", "Places", "ground_of", "on_earth"]

_EARTH_RADIUS_M = 6_371_000
_BACK_M = 10_000
"""By how much a place may miss itself on the way to degrees and back: beyond an edge it comes back at the other one.
Datums differ by hundreds of metres, and PROJ may take another way back."""
_NUDGES = (0.0, 1e-7, -1e-7)
"""Degrees of longitude, a centimetre: exactly on the map's edge the way back may lead to the other edge."""
_ASKED = 33
_AROUND = (
    np.array([(x, y) for x, y in ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0))]) / 2
)
_CLOSE, _ASIDE = 4e-4, 1e-3
"""Pixels: how near a pole may lie to a line of pixels, and how far all are moved if it does."""


@dataclass(frozen=True)
class Ground:
    """A georeference on Earth, taken apart."""

    crs: pyproj.CRS
    to_system: Callable[[Coordinates, Coordinates], tuple[Coordinates, Coordinates]]
    """Columns and rows (corner convention), (n,), to x and y of the CRS."""
    affine: Transform | None
    """The same, or None for GCPs, whose polynomial has no way back."""
    to_degrees: pyproj.Transformer

    @property
    def is_degrees(self) -> bool:
        """Whether the pixels are a grid of longitudes and latitudes, in which no side is bent; a rotated pole bends."""
        return bool(self.crs.is_geographic and not self.crs.is_derived) and self.affine is not None


def on_earth(georeference: Georeference) -> bool:
    """Whether the georeference gives each pixel a place on the Earth, so that an EarthPlacement can be made of it."""
    return ground_of(georeference) is not None


def ground_of(georeference: Georeference) -> Ground | None:
    """None without a CRS on Earth, and without a transform or GCPs that fix a place in it."""
    crs = _crs_on_earth(georeference.crs)
    to_system = None if crs is None else _pixels_to_system(georeference, crs)
    if crs is None or to_system is None:
        return None
    try:
        to_degrees = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    except ProjError:
        return None
    return Ground(crs, to_system, None if georeference.gcps else georeference.transform, to_degrees)


class Places:
    """The place of a level-0 pixel (corner convention) of an image of `size` in degrees; not finite: it has none.

    Latitudes beyond a pole are cut at it, for grids with a row on each reach half a pixel further. Pixels beyond the
    edge of a map of the whole Earth have no place, though the projection's formula gives one, on its far side.
    """

    def __init__(self, ground: Ground, size: Size) -> None:
        self._ground, self._size = ground, size
        self._highest = self._pole_within_reach()
        self._shift: Coordinates | None = None
        self._edged = False
        self._edged = self._has_an_edge()

    def __call__(self, pixels: Coordinates) -> Coordinates:
        """(n, 2), as `pixels`."""
        if self._shift is not None:
            pixels = pixels + self._shift
        x, y = self._ground.to_system(pixels[:, 0], pixels[:, 1])
        if self._highest is not None:
            y = np.clip(y, -self._highest, self._highest)
        degrees = np.stack(self._ground.to_degrees.transform(x, y), axis=1)
        if self._edged:
            degrees[~self._returns(x, y, degrees)] = np.inf
        return degrees

    def poles(self) -> list[Coordinates]:
        """The pixels, (2,), on which a pole lies as a point with the Earth around it, whether in the image or not."""
        return [] if self._ground.affine is None or self._ground.is_degrees else self._poles(self._ground.affine)

    def poles_in(self, size: Size) -> bool:
        """Whether a pole lies in the image or within a quarter of its size: sides are bent around it, seen or not."""
        near = np.array([size.width, size.height]) / 4
        return any(((pole > -near) & (pole < 5 * near)).all() for pole in self.poles())

    def pass_poles_by(self) -> None:
        """Move all pixels a little if a pole lies exactly on a line of them: chance would say how sides pass it."""
        poles = self.poles()
        if not poles:
            return
        beside = (
            next(
                shift
                for shift in (0, _ASIDE, 2 * _ASIDE, 3 * _ASIDE)
                if all(_clear(pole[axis] - shift) for pole in poles)
            )
            for axis in (0, 1)
        )
        shift = np.array([*beside])
        self._shift = shift if shift.any() else None

    def _poles(self, affine: Transform) -> list[Coordinates]:
        found: list[Coordinates] = []
        for latitude in (90.0, -90.0):
            longitudes = np.arange(-180.0, 180.0, 60.0)
            x, y = self._back(np.stack([longitudes, np.full_like(longitudes, latitude)], axis=1))
            pixels = _to_pixels(affine, x, y)
            if np.isfinite(pixels).all() and np.ptp(pixels, axis=0).max() < 1:
                around = self(pixels[0] + _AROUND)
                if np.isfinite(around).all() and abs(np.ptp(unwrapped(around)[[0, -1], 0])) > 180:
                    found.append(pixels[0])
        return found

    def _pole_within_reach(self) -> float | None:
        """The latitude of the pole in the system's units, if the image reaches it and its y are latitudes."""
        turn = turn_of(self._ground.crs)
        if turn is None:
            return None
        width, height = self._size.width, self._size.height
        _, y = self._ground.to_system(np.array([0.0, width, 0, width]), np.array([0.0, 0, height, height]))
        return turn / 4 if np.abs(y).max() > turn / 4 else None

    def _has_an_edge(self) -> bool:
        """Whether part of the image lies beyond the map's edge, from 33 x 33 places."""
        if self._ground.affine is None or self._ground.crs.is_geographic or self._is_cylindrical():
            return False
        sides = (np.linspace(0, side, _ASKED) for side in (self._size.width, self._size.height))
        pixels = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
        degrees = self(pixels)
        placed = np.isfinite(degrees).all(axis=1)
        x, y = self._ground.to_system(pixels[placed, 0], pixels[placed, 1])
        return not self._returns(x, y, degrees[placed]).all()

    def _is_cylindrical(self) -> bool:
        """Whether x follows from the longitude alone: such maps go on round the Earth, and have no edge."""
        longitudes = np.array([-100.0, 20, 140] * 2)
        x, _ = self._back(np.stack([longitudes, np.repeat([0.0, 50], 3)], axis=1))
        return bool(np.isfinite(x).all() and np.abs(x[:3] - x[3:]).max() <= 1e-9 * np.abs(x).max())

    def _returns(self, x: Coordinates, y: Coordinates, degrees: Coordinates) -> NDArray[np.bool_]:
        """Whether the system's coordinates are those of their own places."""
        allowed = _BACK_M / self._ground.crs.axis_info[0].unit_conversion_factor
        found = np.zeros(len(x), bool)
        for nudge in _NUDGES:
            open_ = np.flatnonzero(~found)
            back_x, back_y = self._back(degrees[open_] + np.array([nudge, 0]))
            with np.errstate(invalid="ignore"):
                found[open_] = np.hypot(back_x - x[open_], back_y - y[open_]) <= allowed
        return found

    def _back(self, degrees: Coordinates) -> tuple[Coordinates, Coordinates]:
        x, y = self._ground.to_degrees.transform(degrees[:, 0], degrees[:, 1], direction=TransformDirection.INVERSE)
        return x, y


def _to_pixels(affine: Transform, x: Coordinates, y: Coordinates) -> Coordinates:
    """(n, 2): where the affine takes x and y from; not finite if it takes all to a line."""
    a, b, c, d, e, f = affine
    x, y = x - c, y - f
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.stack([e * x - b * y, a * y - d * x], axis=1) / (a * e - b * d), np.float64)


def _clear(coordinate: float) -> bool:
    return abs(coordinate - round(coordinate)) > _CLOSE


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


def _pixels_to_system(
    georeference: Georeference, crs: pyproj.CRS
) -> Callable[[Coordinates, Coordinates], tuple[Coordinates, Coordinates]] | None:
    """The affine transform, or the polynomial of the GCPs, if there are any."""
    if georeference.gcps:
        return Polynomial.fitted(georeference.gcps, turn_of(crs))
    if georeference.transform is None:
        return None
    a, b, c, d, e, f = georeference.transform
    return lambda columns, rows: (a * columns + b * rows + c, d * columns + e * rows + f)

"""How large a level-0 pixel is: micrometres for slides, ground metres for scenes; unknown rather than guessed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
from affine import Affine
from rasterio.control import GroundControlPoint

from foveate.schema import SpacingInfo
from raster.gcps import Polynomial, turn_of

MICROMETRES = {2: 25_400.0, 3: 10_000.0}
"""Of TIFF's ResolutionUnit: inch, centimetre (TIFF 6.0, section 8)."""

_BELIEVABLE_UM = (0.05, 100.0)
_DEFAULT_DPI = (72, 96, 100, 150, 300)
_UNEVEN = 0.02
"""Of a pixel's area; within a UTM zone it differs by a tenth of that."""
_EARTH_RADIUS_M = (6_350_000.0, 6_400_000.0)


def slide_spacing(x: float | None, y: float | None, origin: str) -> SpacingInfo | None:
    """Micrometres as a format's own field gives them; None when missing or not between 0.05 and 100."""
    sides = (x, y)
    if any(side is None or not _BELIEVABLE_UM[0] <= side <= _BELIEVABLE_UM[1] for side in sides):
        return None
    assert x is not None and y is not None
    return SpacingInfo(x=x, y=y, unit="um", origin=origin)


def resolution_spacing(x: float, y: float, unit: int) -> SpacingInfo | None:
    """From TIFF's XResolution and YResolution (pixels per `unit`, 2 inch or 3 cm); None for a mere default."""
    if unit not in MICROMETRES or not (x > 0 and y > 0):
        return None
    spacing = slide_spacing(MICROMETRES[unit] / x, MICROMETRES[unit] / y, "TIFF resolution tags")
    if spacing is None or any(math.isclose(25_400 / spacing.x, dpi, rel_tol=0.005) for dpi in _DEFAULT_DPI):
        return None
    return spacing


def ground_spacing(
    width: int, height: int, transform: Affine | None, gcps: Sequence[GroundControlPoint], wkt: str | None
) -> SpacingInfo | None:
    """Geodesic sides in metres of the pixel at the image's centre.

    Degrees and Web Mercator are converted; rotation and shear follow the pixel's own axes; GCPs count by the affine
    fitted to them. None without a CRS, for another planet, and where the centre has no place on Earth.
    """
    ground = _Ground.of(transform, gcps, wkt)
    sides = None if ground is None else ground.sides(width / 2, height / 2)
    if sides is None or not min(sides) > 0:
        return None
    origin = "transform and CRS" if transform is not None else "affine fitted to the GCPs, and CRS"
    return SpacingInfo(x=sides[0], y=sides[1], unit="m", origin=origin)


def warn_of_uneven_ground(
    width: int, height: int, transform: Affine | None, gcps: Sequence[GroundControlPoint], wkt: str | None
) -> list[str]:
    """A warning where a pixel at the image's border covers much more or less ground than at its centre.

    And one where GCPs do not say which ground that is.
    """
    if transform is None and gcps and (wkt is None or _fitted(gcps, None) is None):
        return [_gcps_alone(len(gcps), wkt)]
    ground = _Ground.of(transform, gcps, wkt)
    middle = None if ground is None else ground.sides(width / 2, height / 2)
    if ground is None or middle is None or not min(middle) > 0:
        return []
    border = [(x, y) for x in (0.5, width / 2, width - 0.5) for y in (0.5, height / 2, height - 0.5)]
    found = (ground.sides(x, y) for x, y in border)
    # A pixel around a pole, as in grids of degrees with a row on it, has a side of no length.
    shares = [sides[0] * sides[1] / (middle[0] * middle[1]) - 1 for sides in found if sides]
    most = max(shares, key=abs, default=0.0)
    if abs(most) < _UNEVEN:
        return []
    compared = f"{abs(most):.0%} {'more' if most > 0 else 'less'}"
    return [f"a pixel at its border covers {compared} ground than at its centre, which spacing and areas are told for"]


def _gcps_alone(count: int, wkt: str | None) -> str:
    why = "have no system (CRS)" if wkt is None else "fix no place: fewer than three, or all on a line"
    kept = "they are carried to the results, but spacing is unknown and polygons are in pixels"
    return f"its ground control points ({count}) {why}; {kept}"


@dataclass(frozen=True)
class _Ground:
    """Where pixels lie on Earth."""

    to_system: Callable[[float, float], tuple[float, float]]
    """Corner convention, to x and y of the CRS."""
    to_geodetic: pyproj.Transformer
    degrees: float
    """In a unit of the angles that `to_geodetic` gives: 0.9 of grads."""
    geod: pyproj.Geod

    @classmethod
    def of(cls, transform: Affine | None, gcps: Sequence[GroundControlPoint], wkt: str | None) -> "_Ground | None":
        """None without a CRS or a place, and for another planet."""
        if wkt is None:
            return None
        try:
            crs = pyproj.CRS.from_wkt(wkt)
            geodetic = crs.geodetic_crs
            # Geocentric systems have their own for it, in metres.
            if geodetic is None or geodetic.ellipsoid is None or not geodetic.is_geographic:
                return None
            ellipsoid = geodetic.ellipsoid
            if not _EARTH_RADIUS_M[0] < ellipsoid.semi_major_metre < _EARTH_RADIUS_M[1]:
                return None
            to_geodetic = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
        except pyproj.exceptions.ProjError:
            return None
        place = _fitted(gcps, turn_of(crs)) if transform is None else _affine(transform)
        if place is None:
            return None
        turn = turn_of(geodetic)
        assert turn is not None, "geographic"
        degrees = 1.0 if math.isclose(turn, 360) else 360 / turn
        return cls(place, to_geodetic, degrees, pyproj.Geod(a=ellipsoid.semi_major_metre, b=ellipsoid.semi_minor_metre))

    def sides(self, x: float, y: float) -> tuple[float, float] | None:
        """Geodesic sides in metres of the pixel whose centre lies there; None: it has no place on Earth."""
        sides = []
        try:
            for dx, dy in ((0.5, 0.0), (0.0, 0.5)):
                start, end = (self._degrees(x + sign * dx, y + sign * dy) for sign in (-1, 1))
                sides.append(float(self.geod.inv(*start, *end)[2]))
        except pyproj.exceptions.ProjError:
            return None
        return (sides[0], sides[1]) if all(map(math.isfinite, sides)) else None

    def _degrees(self, x: float, y: float) -> tuple[float, float]:
        longitude, latitude = self.to_geodetic.transform(*self.to_system(x, y))
        # Grids with a row on each pole reach half a pixel beyond.
        return longitude * self.degrees, min(max(latitude * self.degrees, -90.0), 90.0)


def _fitted(
    gcps: Sequence[GroundControlPoint], turn: float | None
) -> Callable[[float, float], tuple[float, float]] | None:
    """The affine fitted to the points; None where they fix none."""
    polynomial = Polynomial.fitted([(p.col, p.row, p.x, p.y, p.z or 0.0) for p in gcps], turn, order=1)
    if polynomial is None:
        return None

    def place(x: float, y: float) -> tuple[float, float]:
        places = polynomial(np.array(x), np.array(y))
        return float(places[0]), float(places[1])

    return place


def _affine(transform: Affine) -> Callable[[float, float], tuple[float, float]]:
    # Written out: affine 2 multiplies points with *, affine 3 with @.
    a, b, c, d, e, f = transform[:6]
    return lambda x, y: (a * x + b * y + c, d * x + e * y + f)

"""How large a level-0 pixel is: micrometres for slides, ground metres for scenes; unknown rather than guessed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyproj
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.transform import from_gcps

from foveate.schema import SpacingInfo

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
    if sides is None:
        return None
    origin = "transform and CRS" if transform is not None else "affine fitted to the GCPs, and CRS"
    return SpacingInfo(x=sides[0], y=sides[1], unit="m", origin=origin)


def warn_of_uneven_ground(
    width: int, height: int, transform: Affine | None, gcps: Sequence[GroundControlPoint], wkt: str | None
) -> list[str]:
    """A warning where a pixel at the image's border covers much more or less ground than at its centre."""
    ground = _Ground.of(transform, gcps, wkt)
    middle = None if ground is None else ground.sides(width / 2, height / 2)
    if ground is None or middle is None:
        return []
    border = [(x, y) for x in (0.5, width / 2, width - 0.5) for y in (0.5, height / 2, height - 0.5)]
    found = (ground.sides(x, y) for x, y in border)
    shares = [sides[0] * sides[1] / (middle[0] * middle[1]) - 1 for sides in found if sides]
    most = max(shares, key=abs, default=0.0)
    if abs(most) < _UNEVEN:
        return []
    compared = f"{abs(most):.0%} {'more' if most > 0 else 'less'}"
    return [f"a pixel at its border covers {compared} ground than at its centre, which spacing and areas are told for"]


@dataclass(frozen=True)
class _Ground:
    """Where pixels lie on Earth."""

    transform: Affine
    to_degrees: pyproj.Transformer
    geod: pyproj.Geod

    @classmethod
    def of(cls, transform: Affine | None, gcps: Sequence[GroundControlPoint], wkt: str | None) -> "_Ground | None":
        """None without a CRS or a place, and for another planet."""
        if transform is None and len(gcps) >= 3:
            transform = from_gcps(list(gcps))
        if transform is None or wkt is None:
            return None
        try:
            crs = pyproj.CRS.from_wkt(wkt)
            geodetic = crs.geodetic_crs
            if geodetic is None or geodetic.ellipsoid is None:
                return None
            ellipsoid = geodetic.ellipsoid
            if not _EARTH_RADIUS_M[0] < ellipsoid.semi_major_metre < _EARTH_RADIUS_M[1]:
                return None
            to_degrees = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
        except pyproj.exceptions.ProjError:
            return None
        return cls(transform, to_degrees, pyproj.Geod(a=ellipsoid.semi_major_metre, b=ellipsoid.semi_minor_metre))

    def sides(self, x: float, y: float) -> tuple[float, float] | None:
        """Geodesic sides in metres of the pixel whose centre lies there; None: it has no place on Earth."""
        sides = []
        try:
            for dx, dy in ((0.5, 0.0), (0.0, 0.5)):
                (lon0, lat0), (lon1, lat1) = (
                    self.to_degrees.transform(*_applied(self.transform, x + sign * dx, y + sign * dy))
                    for sign in (-1, 1)
                )
                sides.append(float(self.geod.inv(lon0, lat0, lon1, lat1)[2]))
        except pyproj.exceptions.ProjError:
            return None
        return (sides[0], sides[1]) if all(math.isfinite(side) and side > 0 for side in sides) else None


def _applied(transform: Affine, x: float, y: float) -> tuple[float, float]:
    # Written out: affine 2 multiplies points with *, affine 3 with @.
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f

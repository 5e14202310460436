"""Ground control points as a polynomial from pixels to the system that the points are told in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyproj
from numpy.typing import NDArray

from raster.georeference import GroundPoint

_SECOND_ORDER_FROM = 6
"""Points from which on GDAL takes the second order (`gdalwarp`, `-order`)."""
_SOLVABLE = 1e-4
"""Least of the singular values over the largest one: what lies on a line, or on two for the second order, has none."""
_ROUNDING = 1e-12
"""Least step on the ground over the coordinates themselves: what is left of points in one place is their rounding."""
_SLIVER = 1 / 50
"""Width over height, in degrees, that no image has."""


@dataclass(frozen=True)
class Polynomial:
    """x and y as a polynomial of column and row (corner convention), by least squares as GDAL does it."""

    coefficients: NDArray[np.float64]
    """(terms, 2), of the terms that `_terms` makes."""
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    """(2,): half of the points' span in columns and rows, by which both are divided, or powers would drown the rest."""

    @classmethod
    def fitted(cls, gcps: Sequence[GroundPoint], turn: float | None, order: int | None = None) -> Self | None:
        """Order 2 from six points on, where these fix it, or else 1; None where they do not fix that either.

        That is fewer than three points, points on a line, and such as lie on one on the ground. `turn` as `turn_of`
        gives it. `order` 1 asks for an affine, however many points there are.
        """
        points = np.array(gcps, np.float64).reshape(-1, 5)
        if len(points) < 3:
            return None
        pixels, ground = points[:, :2], _unwrapped(points[:, :2], points[:, 2:4], turn)
        for wanted in (2, 1) if order is None and len(points) >= _SECOND_ORDER_FROM else (1,):
            found = cls._of_order(pixels, ground, wanted)
            if found is not None and found._spread():
                return found
        return None

    def __call__(
        self, columns: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        terms = _terms((np.stack([columns, rows], axis=-1) - self.centre) / self.half, len(self.coefficients) > 3)
        places = terms @ self.coefficients
        return places[..., 0], places[..., 1]

    @classmethod
    def _of_order(cls, pixels: NDArray[np.float64], ground: NDArray[np.float64], order: int) -> Self | None:
        half = np.ptp(pixels, axis=0) / 2
        if not half.all():
            return None
        centre = pixels.min(axis=0) + half
        terms = _terms((pixels - centre) / half, order == 2)
        values = np.linalg.svd(terms, compute_uv=False)
        if values[-1] < _SOLVABLE * values[0]:
            return None
        # Less the mean: northings have seven digits before the point, and those behind it count.
        mean = ground.mean(axis=0)
        coefficients = np.linalg.lstsq(terms, ground - mean)[0]
        coefficients[0] += mean
        return cls(coefficients, centre, half)

    def _spread(self) -> bool:
        """Whether the ground is more than a point or a line: the area that a step along columns and rows spans."""
        across, down = self.coefficients[1:3]
        area = abs(float(across[0] * down[1] - across[1] * down[0]))
        steps = float(np.hypot(*across)), float(np.hypot(*down))
        rounding = _ROUNDING * float(np.abs(self.coefficients[0]).max())
        return min(steps) > rounding and area > _SOLVABLE * steps[0] * steps[1]


def turn_of(crs: pyproj.CRS) -> float | None:
    """A full turn in x where x is a longitude: 360 degrees, 400 grads; None for other systems."""
    if not crs.is_geographic:
        return None
    return float(2 * np.pi / crs.axis_info[0].unit_conversion_factor)


def _terms(places: NDArray[np.float64], second: bool) -> NDArray[np.float64]:
    """(..., 3 or 6): 1, x, y and, for the second order, x², xy, y²."""
    x, y = places[..., 0], places[..., 1]
    return np.stack([np.ones_like(x), x, y, *([x * x, x * y, y * y] if second else [])], axis=-1)


def _unwrapped(pixels: NDArray[np.float64], ground: NDArray[np.float64], turn: float | None) -> NDArray[np.float64]:
    """The places, those west of the antimeridian a turn further where the points straddle it, as radar scenes may.

    Points of the whole Earth span more than half of it too, so the turn must not fit worse, nor leave a sliver, as it
    does of points in the middle of the corner pixels.
    """
    if turn is None or np.ptp(ground[:, 0]) <= turn / 2:
        return ground
    moved = ground + np.stack([np.where(ground[:, 0] < 0, turn, 0.0), np.zeros(len(ground))], axis=1)
    sliver = np.ptp(moved[:, 0]) <= _SLIVER * np.ptp(ground[:, 1])
    return moved if not sliver and _misfit(pixels, moved) <= _misfit(pixels, ground) + 1e-6 * turn else ground


def _misfit(pixels: NDArray[np.float64], ground: NDArray[np.float64]) -> float:
    """How far the worst point's longitude lies from the affine fitted to all."""
    terms = np.column_stack([np.ones(len(pixels)), pixels])
    fitted = terms @ np.linalg.lstsq(terms, ground[:, 0])[0]
    return float(np.abs(ground[:, 0] - fitted).max())

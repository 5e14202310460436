"""The way from pixels to degrees as a polynomial, where one tells the same: it takes a sixth of a projection's time."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.polynomial.chebyshev import chebpts1
from numpy.polynomial.polynomial import polyvander2d
from numpy.typing import NDArray

from raster.bends import ToDegrees
from raster.geometry import Size
from raster.globe import Coordinates

_DEGREES = (1, 3, 5, 7)
"""In x and y together; tried in this order."""
_TESTED = 33
"""Places a side of the image at which a polynomial is held against what it stands for."""
_AT_ONCE = 1 << 14
"""Places whose arrays fit a processor's cache."""


@dataclass(frozen=True)
class SmoothPlaces:
    """Longitude and latitude, (n, 2), of pixels, (n, 2), of an image.

    `coefficients` (2, d + 1, d + 1): of x^i y^j, of pixels less their `centre` over `half`. What comes out for a place
    depends on it alone, not on the others that are asked for with it.
    """

    coefficients: NDArray[np.float64]
    centre: NDArray[np.float64]
    half: NDArray[np.float64]

    @classmethod
    def fitted(cls, exact: ToDegrees, size: Size, tolerance: float) -> Self | None:
        """The simplest that leaves `exact` by no more than `tolerance` [degrees] at 33 x 33 places.

        None: there is none, or one of these has no place in degrees.
        """
        half = np.array([size.width, size.height]) / 2
        tested = _grid(np.linspace(-1, 1, _TESTED))
        wanted = exact((tested + 1) * half)
        if not np.isfinite(wanted).all():
            return None
        for degree in _DEGREES:
            found = cls._of_degree(degree, exact, half)
            if np.abs(found((tested + 1) * half) - wanted).max() <= tolerance:
                return found
        return None

    @classmethod
    def _of_degree(cls, degree: int, exact: ToDegrees, half: NDArray[np.float64]) -> Self:
        nodes = _grid(chebpts1(2 * degree + 2))
        degrees = exact((nodes + 1) * half)
        middle = degrees.mean(axis=0)
        powers = np.add.outer(np.arange(degree + 1), np.arange(degree + 1))
        terms = polyvander2d(nodes[:, 0], nodes[:, 1], [degree, degree])[:, powers.ravel() <= degree]
        coefficients = np.zeros((2, degree + 1, degree + 1))
        coefficients[:, powers <= degree] = np.linalg.lstsq(terms, degrees - middle)[0].T
        coefficients[:, 0, 0] += middle
        return cls(coefficients, half, half)

    def __call__(self, pixels: Coordinates) -> Coordinates:
        found = np.empty(pixels.shape)
        for first in range(0, len(pixels), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            x, y = ((pixels[part] - self.centre) / self.half).T.copy()
            for axis in (0, 1):
                found[part, axis] = self._value(self.coefficients[axis], x, y)
        return found

    @staticmethod
    def _value(
        coefficients: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Horner's way, of y within that of x."""
        degree = len(coefficients) - 1
        value = np.full_like(x, coefficients[degree, 0])
        for i in range(degree - 1, -1, -1):
            inner = np.full_like(y, coefficients[i, degree - i])
            for j in range(degree - i - 1, -1, -1):
                inner *= y
                inner += coefficients[i, j]
            value *= x
            value += inner
        return value


def _grid(side: NDArray[np.float64]) -> Coordinates:
    """(n * n, 2): every pair."""
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)

"""Sides of pixels are curves in degrees: how far a straight one leaves its place, and corners that keep it there."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from raster.globe import Coordinates

ToDegrees = Callable[[Coordinates], Coordinates]
"""Level-0 pixels, (n, 2), to longitude and latitude; not finite where a pixel has no place."""

_TESTED = 0.4
"""Where on a side it is looked at: a bow is nearly at its highest, and a wave does not pass through the middle."""
_BESIDE = 0.25
"""Pixels beside a place at which it is measured how long a pixel is there."""
_NEAR = 0.25
"""Pixels for which that may be taken to hold."""
_BENT = 0.1
"""Pixels; the eighth that is allowed, less what lies elsewhere on the side."""
_SHORT, _SHORTEST = 1 / 4, 1 / 64
"""Pixels of a side that is not cut any more, at the edge of the map and elsewhere."""
_TOGETHER = 1 << 16
"""Sides that are looked at in one go: their vectors take a few hundred bytes each."""


def deviations(
    to_degrees: ToDegrees, start: Coordinates, end: Coordinates, first: Coordinates, last: Coordinates
) -> tuple[NDArray[np.float64], Coordinates, Coordinates]:
    """By how many pixels, (n,), the straight sides `first` to `last` in degrees leave the sides `start` to `end`.

    Counted across the side, where it is tested: that place in pixels, and in degrees, comes with it. Infinitely
    many at the edge of the map, and 0 beyond it. In space, for around a pole degrees say little.
    """
    side = end - start
    # The same place from whichever end, so that neighbours cut a side alike.
    back = (side[:, 0] < 0) | ((side[:, 0] == 0) & (side[:, 1] < 0))
    share = np.where(back, 1 - _TESTED, _TESTED)[:, None]
    tested = start + share * side
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        along = side / np.hypot(side[:, 0], side[:, 1])[:, None]
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        around = [tested, tested + _BESIDE * along, tested + _BESIDE * across]
        here, *beside = np.split(to_degrees(np.concatenate(around)), 3)
        way = last - first
        way[:, 0] -= 360 * np.round(way[:, 0] / 360)
        chord = _in_space(first + share * way)
        pixel = [(_in_space(one) - _in_space(here)) / _BESIDE for one in beside]
        ahead, off = _in_pixels(chord - _in_space(here), *pixel)
        # Far along the side a pixel has other sides: once more from there.
        far = np.flatnonzero(np.abs(ahead) + np.abs(off) > _NEAR)
        if len(far):
            there = to_degrees(tested[far] + ahead[far, None] * along[far] + off[far, None] * across[far])
            _, more = _in_pixels(chord[far] - _in_space(there), *(vector[far] for vector in pixel))
            off[far] += np.where(np.isfinite(more), more, 0)
        # Where the map ends next to a side there is no telling, and only a short one is safe.
        beyond = np.isfinite(chord).all(axis=1) & ~np.isfinite(pixel).all(axis=(0, 2))
    return np.where(np.isfinite(off), np.abs(off), np.where(beyond, np.inf, 0)), tested, here


def refined(to_degrees: ToDegrees, points: Coordinates) -> Coordinates:
    """A line of pixels, (n, 2), in degrees, with more corners where its sides would leave their place."""
    degrees = to_degrees(points)
    waiting = np.ones(len(points) - 1, bool)
    while waiting.any():
        sides = np.flatnonzero(waiting)
        parts = [
            _cuts(to_degrees, points, degrees, part)
            for part in np.split(sides, range(_TOGETHER, len(sides), _TOGETHER))
        ]
        cut, new_points, new_degrees = (np.concatenate(column) for column in zip(*parts, strict=True))
        points, degrees = (
            np.insert(points, cut + 1, new_points, axis=0),
            np.insert(degrees, cut + 1, new_degrees, axis=0),
        )
        waiting[:] = False
        waiting[cut] = True
        waiting = np.insert(waiting, cut + 1, True)
    return degrees


def _cuts(
    to_degrees: ToDegrees, points: Coordinates, degrees: Coordinates, sides: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Coordinates, Coordinates]:
    """Which of `sides` are bent, and where they are cut, in pixels and degrees."""
    start, end = points[sides], points[sides + 1]
    off, tested, here = deviations(to_degrees, start, end, degrees[sides], degrees[sides + 1])
    bent = (off > _BENT) & (np.abs(end - start).max(axis=1) > np.where(np.isinf(off), _SHORT, _SHORTEST))
    return sides[bent], tested[bent], here[bent]


def _in_pixels(
    vector: NDArray[np.float64], along: NDArray[np.float64], across: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Twice (n,): how much of `along` and `across`, (n, 3) each, makes up `vector`, but for what leaves their plane."""
    square, mixed, other = _dot(along, along), _dot(along, across), _dot(across, across)
    ahead, aside = _dot(vector, along), _dot(vector, across)
    area = square * other - mixed * mixed
    return (other * ahead - mixed * aside) / area, (square * aside - mixed * ahead) / area


def _dot(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", one, other), np.float64)


def _in_space(degrees: Coordinates) -> NDArray[np.float64]:
    """(n, 3): places on a sphere of radius 1."""
    longitude, latitude = np.radians(degrees).T
    level = np.cos(latitude)
    return np.stack([level * np.cos(longitude), level * np.sin(longitude), np.sin(latitude)], axis=1)

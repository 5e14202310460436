"""F_theta over thumbnails of any length, and what it says at the lattice's cells.

Letters: D fields of view, H W thumbnail pixels, C bands.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.predictor import Predictor
from raster.grid import Lattice

__all__ = ["cell_distribution", "thumbnail_distribution"]

_BAND = 256
"""Thumbnail rows given to F_theta at a time."""
_REACH = 3
"""Rows above and below that F_theta's three 3x3 convolutions see."""


def cell_distribution(
    predictor: Predictor, thumbnail_HWC: NDArray[Any], step: int, lattice: Lattice
) -> NDArray[np.float32]:
    """(D, rows, columns): F_theta's probabilities at the lattice's centres; uniform for a bundle without F_theta.

    A thumbnail pixel stands for `step` working pixels. F_theta runs on bands of the thumbnail; the bands reach far
    enough over each other to change nothing. Probabilities are read between thumbnail pixels bilinearly with half-pixel
    centres (method, section 10).
    """
    D = len(lattice.fovs)
    shape = (D, lattice.rows, lattice.columns)
    if predictor.card.foveation is None:
        return np.full(shape, 1 / D, np.float32)
    chosen = np.empty(shape, np.float32)
    y_place = _places(lattice.rows, lattice, step, thumbnail_HWC.shape[0])
    x_place = _places(lattice.columns, lattice, step, thumbnail_HWC.shape[1])
    for first, band in _bands(predictor, thumbnail_HWC):
        inside = (y_place >= first) & (y_place < first + _BAND)
        if inside.any():
            chosen[:, inside] = _bilinear(band, y_place[inside] - first, x_place)
    return chosen


def thumbnail_distribution(predictor: Predictor, thumbnail_HWC: NDArray[Any]) -> NDArray[np.float32]:
    """(D, H, W): F_theta's probabilities at every thumbnail pixel."""
    return np.concatenate([band[:, :_BAND] for _, band in _bands(predictor, thumbnail_HWC)], axis=1)


def _places(count: int, lattice: Lattice, step: int, length: int) -> NDArray[np.float64]:
    """Thumbnail coordinates of the centres along one axis, clamped to the outermost pixel centres."""
    centres = lattice.patch / 2 + np.arange(count) * lattice.stride
    return np.clip(centres / step - 0.5, 0, length - 1)


def _bands(predictor: Predictor, values: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first row, probabilities (D, at most BAND + 1, width)): one row more than the band, to interpolate into."""
    height = values.shape[0]
    whole = None
    if predictor.card.foveation is not None and predictor.card.foveation.norm == "instance":
        # Instance norm looks at all of its input, so a band would not give what the whole gives.
        whole = predictor.distribution(np.ascontiguousarray(values))
    for first in range(0, height, _BAND):
        last = min(first + _BAND + 1, height)
        low, high = max(0, first - _REACH), min(height, last + _REACH)
        if whole is not None:
            yield first, whole[:, first:last]
            continue
        probabilities = predictor.distribution(np.ascontiguousarray(values[low:high]))
        yield first, probabilities[:, first - low : last - low]


def _bilinear(band_DHW: NDArray[np.float32], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values at all pairs of (y, x), as (D, len(y), len(x))."""
    rows = _lerp(band_DHW, y, 1)
    return _lerp(rows, x, 2)


def _lerp(values: NDArray[np.float32], place: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    first = np.floor(place).astype(np.int64)
    second = np.minimum(first + 1, values.shape[axis] - 1)
    t = (place - first).astype(np.float32)
    t = t[:, None] if axis == 1 else t[None, :]
    mixed: NDArray[np.float32] = values.take(first, axis) * (1 - t) + values.take(second, axis) * t
    return mixed

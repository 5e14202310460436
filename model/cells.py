"""F_theta over thumbnails of any length, and what it says at the lattice's cells.

Letters: D fields of view, H W thumbnail pixels, C bands.
"""

import numpy as np
from numpy.typing import NDArray

from foveate.schema import BundleCard
from model.predictor import Predictor
from raster.grid import Lattice
from raster.rows import Rows, bands

__all__ = ["Distribution", "cell_distribution", "thumbnail_step"]

_PLAIN_STEP = 8
"""Thumbnail pixels per patch side without F_theta: tissue masks, and locations in training, are wanted all the same."""


def thumbnail_step(card: BundleCard) -> int:
    """Working pixels per thumbnail pixel, which is a location of F_theta's; an eighth of a patch without F_theta."""
    return card.foveation.downsample if card.foveation else max(1, card.patch_size // _PLAIN_STEP)


class Distribution:
    """F_theta's probabilities at every thumbnail pixel, computed for the rows that are asked for.

    F_theta sees a few rows more than those, enough to change nothing; but for one with instance norm, which looks at
    all of its input: all is computed, and kept, at once.
    """

    def __init__(self, predictor: Predictor, thumbnail_HWC: Rows) -> None:
        """Of a bundle with F_theta."""
        assert predictor.card.foveation is not None and predictor.foveation is not None
        self._reach = predictor.foveation.reach
        self._predictor, self._thumbnail = predictor, thumbnail_HWC
        self._height = thumbnail_HWC.shape[0]
        self._whole: NDArray[np.float32] | None = None
        if predictor.card.foveation.norm == "instance":
            self._whole = self._of(0, self._height)

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        """(D, rows, W)."""
        first, last, _ = rows.indices(self._height)
        if self._whole is not None:
            return self._whole[:, first:last]
        low, high = max(0, first - self._reach), min(self._height, last + self._reach)
        return self._of(low, high)[:, first - low : last - low]

    def everywhere(self) -> NDArray[np.float32]:
        """(D, H, W)."""
        return np.concatenate([self[rows] for rows in bands(self._height)], axis=1)

    def _of(self, first: int, last: int) -> NDArray[np.float32]:
        return self._predictor.distribution(np.ascontiguousarray(self._thumbnail[first:last]))


def cell_distribution(predictor: Predictor, thumbnail_HWC: Rows, step: int, lattice: Lattice) -> NDArray[np.float32]:
    """(D, rows, columns): F_theta's probabilities at the lattice's centres; uniform for a bundle without F_theta.

    A thumbnail pixel stands for `step` working pixels. Probabilities are read between thumbnail pixels bilinearly with
    half-pixel centres (method, section 10).
    """
    D = len(lattice.fovs)
    shape = (D, lattice.rows, lattice.columns)
    if predictor.card.foveation is None:
        return np.full(shape, 1 / D, np.float32)
    chosen = np.empty(shape, np.float32)
    y_place = _places(lattice.rows, lattice, step, thumbnail_HWC.shape[0])
    x_place = _places(lattice.columns, lattice, step, thumbnail_HWC.shape[1])
    distribution = Distribution(predictor, thumbnail_HWC)
    for rows in bands(thumbnail_HWC.shape[0]):
        inside = (y_place >= rows.start) & (y_place < rows.stop)
        if inside.any():
            band = distribution[rows.start : rows.stop + 1]  # one row more, to interpolate into
            chosen[:, inside] = _bilinear(band, y_place[inside] - rows.start, x_place)
    return chosen


def _places(count: int, lattice: Lattice, step: int, length: int) -> NDArray[np.float64]:
    """Thumbnail coordinates of the centres along one axis, clamped to the outermost pixel centres."""
    centres = lattice.patch / 2 + np.arange(count) * lattice.stride
    return np.clip(centres / step - 0.5, 0, length - 1)


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

"""The first look: a whole-image thumbnail at F_theta's step, and the distribution over fields of view that it gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import BundleCard
from model.predictor import Predictor
from raster.geometry import Region, Size
from raster.grid import Lattice, WorkingGrid
from raster.source import Plane, Source

_BAND = 256
"""Thumbnail rows read, and given to F_theta, at a time."""
_REACH = 3
"""Rows above and below that F_theta's three 3x3 convolutions see."""
_PLAIN_STEP = 8
"""Thumbnail pixels per patch side for bundles without F_theta, which need one for the tissue mask only."""

Step = Callable[[float], None]


@dataclass(frozen=True)
class Thumbnail:
    """The image at `step` working pixels per pixel, antialiased.

    `values` (height, width, bands) in the bundle's dtype and `valid` (height, width) float32, the share that is data,
    lie in files, so memory does not follow the image.
    """

    step: int
    values: NDArray[Any]
    valid: NDArray[np.float32]
    damaged: frozenset[Region]


def step_of(card: BundleCard) -> int:
    """Working pixels per thumbnail pixel."""
    return card.foveation.downsample if card.foveation else max(1, card.patch_size // _PLAIN_STEP)


def take_thumbnail(source: Source, grid: WorkingGrid, card: BundleCard, scratch: Path, report: Step) -> Thumbnail:
    """Read the thumbnail in bands into files under `scratch` (an existing directory)."""
    step = step_of(card)
    size = Size(-(-grid.size.width // step), -(-grid.size.height // step))
    plane = Plane((grid.ratio[0] * step, grid.ratio[1] * step))
    first = source.read(plane, Region(0, 0, 1, 1))
    values = np.lib.format.open_memmap(
        scratch / "thumbnail.npy", "w+", first.values.dtype, (*size.shape, first.values.shape[2])
    )
    valid = np.lib.format.open_memmap(scratch / "valid.npy", "w+", np.float32, size.shape)
    damaged: set[Region] = set()
    for y in range(0, size.height, _BAND):
        for x in range(0, size.width, _BAND):
            part = Region.between(x, y, min(x + _BAND, size.width), min(y + _BAND, size.height))
            sample = source.read(plane, part)
            values[part.slices()] = sample.values
            valid[part.slices()] = 1.0 if sample.valid is None else sample.valid
            damaged |= sample.damaged
        report(min(1.0, (y + _BAND) / size.height))
    return Thumbnail(step, values, valid, frozenset(damaged))


def distribution(predictor: Predictor, thumbnail: Thumbnail, lattice: Lattice) -> NDArray[np.float32]:
    """(D, rows, columns): F_theta's probabilities at the lattice's centres; uniform for a bundle without F_theta.

    F_theta runs on bands of the thumbnail; the bands reach far enough over each other to change nothing. Probabilities
    are read between thumbnail pixels bilinearly with half-pixel centres (method, section 10).
    """
    D = len(lattice.fovs)
    shape = (D, lattice.rows, lattice.columns)
    if predictor.card.foveation is None:
        return np.full(shape, 1 / D, np.float32)
    chosen = np.empty(shape, np.float32)
    y_place = _places(lattice.rows, lattice, thumbnail.step, thumbnail.values.shape[0])
    x_place = _places(lattice.columns, lattice, thumbnail.step, thumbnail.values.shape[1])
    for first, band in _bands(predictor, thumbnail.values):
        inside = (y_place >= first) & (y_place < first + _BAND)
        if inside.any():
            chosen[:, inside] = _bilinear(band, y_place[inside] - first, x_place)
    return chosen


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

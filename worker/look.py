"""The first look: a whole-image thumbnail at F_theta's step, and the distribution over fields of view that it gives."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import BundleCard
from model.cells import cell_distribution, thumbnail_distribution
from model.predictor import Predictor
from raster.geometry import Region, Size
from raster.grid import Lattice, WorkingGrid
from raster.source import Plane, Source

_BAND = 256
"""Side of the pieces in which the thumbnail is read."""
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


def distribution_everywhere(predictor: Predictor, thumbnail: Thumbnail) -> NDArray[np.float32]:
    """(D, height, width): F_theta's probabilities at every pixel of the thumbnail."""
    return thumbnail_distribution(predictor, thumbnail.values)


def distribution(predictor: Predictor, thumbnail: Thumbnail, lattice: Lattice) -> NDArray[np.float32]:
    """(D, rows, columns): F_theta's probabilities at the lattice's centres; uniform for a bundle without F_theta."""
    return cell_distribution(predictor, thumbnail.values, thumbnail.step, lattice)

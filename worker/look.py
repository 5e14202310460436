"""The first look: a whole-image thumbnail at F_theta's step, and the distribution over fields of view that it gives."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import BundleCard
from model.cells import cell_distribution, thumbnail_step
from model.predictor import Predictor
from raster.geometry import Region, Size
from raster.grid import Lattice, WorkingGrid
from raster.rows import Rows, RowsOnDisk, WatchedRows, bands
from raster.source import Plane, Source

Step = Callable[[float], None]


@dataclass(frozen=True)
class Thumbnail:
    """The image at `step` working pixels per pixel, antialiased.

    `values` (height, width, bands) in the bundle's dtype and `valid` (height, width) float32, the share that is data,
    lie in files, so memory does not follow the image. What is no data has the colour `fill` (bands,) in the mean.
    """

    step: int
    values: Rows
    valid: Rows
    fill: NDArray[Any]
    damaged: frozenset[Region]


def take_thumbnail(source: Source, grid: WorkingGrid, card: BundleCard, scratch: Path, report: Step) -> Thumbnail:
    """Read the thumbnail in bands into files without names under `scratch`, an existing directory, which attempts may
    share. `report` gets the share that is read, and 1 whenever rows of the whole are looked at, which takes a while."""
    step = thumbnail_step(card)
    size = Size(-(-grid.size.width // step), -(-grid.size.height // step))
    plane = Plane((grid.ratio[0] * step, grid.ratio[1] * step))
    first = source.read(plane, Region(0, 0, 1, 1))
    count = first.values.shape[2]
    values = RowsOnDisk(scratch, (*size.shape, count), first.values.dtype)
    valid = RowsOnDisk(scratch, size.shape, np.dtype(np.float32))
    damaged: set[Region] = set()
    for rows in bands(size.height):
        height = rows.stop - rows.start
        band, there = np.empty((height, size.width, count), values.dtype), np.empty((height, size.width), np.float32)
        for columns in bands(size.width):
            sample = source.read(plane, Region.between(columns.start, rows.start, columns.stop, rows.stop))
            band[:, columns] = sample.values
            there[:, columns] = 1.0 if sample.valid is None else sample.valid
            damaged |= sample.damaged
        values.append(band)
        valid.append(there)
        report(rows.stop / size.height)

    def watch() -> None:
        report(1.0)

    return Thumbnail(step, WatchedRows(values, watch), WatchedRows(valid, watch), source.fill, frozenset(damaged))


def distribution(predictor: Predictor, thumbnail: Thumbnail, lattice: Lattice) -> NDArray[np.float32]:
    """(D, rows, columns): F_theta's probabilities at the lattice's centres; uniform for a bundle without F_theta."""
    return cell_distribution(predictor, thumbnail.values, thumbnail.step, lattice)

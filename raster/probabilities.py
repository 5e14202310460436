"""probabilities.zarr: the blended class probabilities themselves, as a zarr v3 store."""

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from foveate.schema import ClassCard
from raster.geometry import Region, Size
from raster.georeference import Georeference

_CHUNK = 256
"""Rows and columns of a chunk, which holds all classes."""


class ProbabilitiesWriter:
    """Takes (K, height, width) float16 as bands of whole rows, from top to bottom, into the new store at `path`.

    NaN = not examined. `zarr.open_array(path)` reads it; its attributes name the classes and the place. Memory: rows
    that do not fill a chunk yet. For one thread.
    """

    def __init__(self, path: Path, size: Size, classes: Sequence[ClassCard], georeference: Georeference) -> None:
        shutil.rmtree(path, ignore_errors=True)
        self._array: Any = zarr.create_array(
            path,
            shape=(len(classes), *size.shape),
            chunks=(len(classes), _CHUNK, _CHUNK),
            dtype="float16",
            fill_value=np.nan,
            dimension_names=("class", "y", "x"),
            attributes={
                "classes": [card.model_dump(mode="json") for card in classes],
                "transform": georeference.transform,
                "crs": georeference.crs,
                "gcps": georeference.gcps,
                "pixel_size_um": georeference.spacing_um,
            },
        )
        self._y = 0
        self._waiting = np.empty((len(classes), 0, size.width), np.float16)

    def write(self, region: Region, values: NDArray[np.float16]) -> None:
        """Add the next rows, those of `region`."""
        assert region.y == self._y + self._waiting.shape[1], "rows come from top to bottom"
        rows = np.concatenate([self._waiting, values], axis=1)
        whole = rows.shape[1] // _CHUNK * _CHUNK
        self._put(rows[:, :whole])
        self._waiting = rows[:, whole:].copy()

    def finish(self) -> None:
        """Write the last rows."""
        self._put(self._waiting)

    def _put(self, rows: NDArray[np.float16]) -> None:
        for y in range(0, rows.shape[1], _CHUNK):
            band = rows[:, y : y + _CHUNK]
            self._array[:, self._y : self._y + band.shape[1]] = band
            self._y += band.shape[1]


def zipped(store: Path) -> Path:
    """Put the store into one file `store`.zip, which zarr opens as it is, in place of the directory."""
    path = store.with_name(store.name + ".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for part in sorted(part for part in store.rglob("*") if part.is_file()):
            # A fixed date: the same store is the same bytes.
            entry = zipfile.ZipInfo(part.relative_to(store).as_posix(), (1980, 1, 1, 0, 0, 0))
            with part.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)
    shutil.rmtree(store)
    return path

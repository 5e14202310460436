"""The rasters of a result: mask.tif with its sidecar, and foveation.tif."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image

from foveate.schema import NODATA, ClassCard
from raster.aux_xml import aux_xml
from raster.cog import (
    cog_copy,
    georeferencing,
    lost_crs,
    needs_bigtiff,
    place_tags,
    scratch_profile,
    with_crs,
    write_lost_crs,
    writing,
)
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.overviews import build_overviews, corner_halved, mode_halved, tiles_across
from raster.scratch import ScratchRaster
from raster.whole_file import disk_full, whole_file


class MaskWriter:
    """Takes a mask piece by piece in any order, each pixel once, and ends with a cloud-optimised GeoTIFF.

    What is never written stays 255. Memory does not follow the mask: the pieces go to a sparse file in `scratch`, a
    directory on the disk of the result. For one thread at a time; a context manager, which closes it.
    """

    def __init__(self, scratch: Path, size: Size, classes: Sequence[ClassCard], georeference: Georeference) -> None:
        self._size = size
        self._classes = tuple(classes)
        self._counts = np.zeros(256, dtype=np.int64)
        self._georeference = georeference
        self._raster = ScratchRaster(scratch, "mask", size, "uint8", NODATA, georeference, self._prepare)

    def _prepare(self, dataset: Any) -> None:
        # GDAL stores a palette only if it comes before the first pixel.
        dataset.write_colormap(1, _palette(self._classes))
        # GDAL splits a name at a colon: readers find the key `foveate` with the value `classes=[…]`.
        dataset.update_tags(**{"foveate:classes": _classes_json(self._classes)})
        dataset.set_band_description(1, "class")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is left in `scratch`."""
        self._raster.close()

    @property
    def counts(self) -> NDArray[np.int64]:
        """(256,): pixels of each value; the last one counts what was written as 255 and what was never written."""
        counts = self._counts.copy()
        counts[NODATA] = self._size.area - counts[:NODATA].sum()
        return counts

    def write(self, region: Region, labels: NDArray[np.uint8]) -> None:
        """Place `labels`, uint8 (height, width), at `region` of the mask. Raises DiskFull."""
        if labels.shape != region.size.shape or not Region.of(self._size).contains(region):
            raise ValueError(f"labels {labels.shape} do not fit {region} in a mask of {self._size}")
        counts = _histogram(labels)
        if counts[NODATA] == labels.size:
            return
        self._counts += counts
        self._raster.write(region, labels)

    def seal(self) -> Path:
        """Compute the overviews; nothing can be written afterwards. The scratch file, which has all pixels."""
        return self._raster.seal(mode_halved)

    def finish(self, path: Path) -> None:
        """Write the COG at `path` and its sidecar `path`.aux.xml; nothing can be written afterwards.

        GDAL may lose tiles on a full disk without a word, so the copy is read back and its pixels are counted before it
        gets its name. Raises DiskFull.
        """
        scratch = self.seal()
        with writing(path), cog_copy(scratch, path, bigtiff=needs_bigtiff(self._size, 1)) as copy:
            self._check(copy, path)
            crs = lost_crs(copy, self._georeference)
        with whole_file(path.with_name(path.name + ".aux.xml")) as partial:
            counts = self.counts
            text = aux_xml(self._classes, [int(counts[card.value]) for card in self._classes])
            partial.write_text(with_crs(text, crs), encoding="utf-8")

    def _check(self, copy: Path, path: Path) -> None:
        found = np.zeros(256, np.int64) + self._raster.total(copy, _histogram)
        if not np.array_equal(found[:NODATA], self._counts[:NODATA]):
            raise disk_full(path, "pixels that were written are not in the file")


def _histogram(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,): pixels of each value. Pillow counts bytes; numpy would make indices of eight bytes first."""
    return np.array(Image.fromarray(labels).histogram(), np.int64)


def write_foveation(
    path: Path, mean_fov: NDArray[np.float32], chosen: NDArray[np.float32], georeference: Georeference
) -> None:
    """Write foveation.tif: float32, one pixel a cell, NaN = not examined.

    mean_fov: (rows, columns), weighted mean FoV in 0..1 (paper, B.4). chosen: (rows, columns), index of the FoV from 1.
    georeference: that of the cells, which share out the ground of the mask evenly (design 2), so that where a border
    cuts cells a pixel lies a part of a cell beside its own. `path`.aux.xml holds a CRS that the file cannot. Raises
    DiskFull.
    """
    bands = np.stack([mean_fov, chosen]).astype(np.float32)
    size = Size(bands.shape[2], bands.shape[1])
    scratch = Path(tempfile.mkdtemp(prefix="foveation-", dir=path.parent))
    try:
        with writing(path):
            source = scratch / "foveation.tif"
            profile = scratch_profile(size, "float32", 2, np.nan) | georeferencing(georeference)
            with rasterio.open(source, "w", **profile) as dataset:
                dataset.update_tags(**place_tags(georeference))
                dataset.set_band_description(1, "weighted mean field of view, 0..1")
                dataset.set_band_description(2, "chosen field of view, 1-based")
                dataset.write(bands)
            build_overviews(source, np.ones(tiles_across(size), dtype=bool), corner_halved, np.nan)
            with (
                cog_copy(source, path, bigtiff=needs_bigtiff(size, 8)) as copy,
                rasterio.open(copy) as dataset,
            ):
                if not np.array_equal(dataset.read(), bands, equal_nan=True):
                    raise disk_full(path, "pixels that were written are not in the file")
                crs = lost_crs(copy, georeference)
        write_lost_crs(path, crs)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _palette(classes: Sequence[ClassCard]) -> dict[int, tuple[int, int, int, int]]:
    return {card.value: (*card.color, 255) for card in classes} | {NODATA: (0, 0, 0, 0)}


def _classes_json(classes: Sequence[ClassCard]) -> str:
    return json.dumps([card.model_dump(mode="json") for card in classes], ensure_ascii=False, separators=(",", ":"))

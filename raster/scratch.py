"""One band on its way to a cloud-optimised GeoTIFF: filled window by window on disk, so memory does not follow it."""

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from raster.cog import georeferencing, place_tags, scratch_profile, writing
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.overviews import TILE, Halving, build_overviews, tile_region, tiles_across, window_of

_READERS = 2
"""Threads that read a copy: nothing else is left to do by then."""


class ScratchRaster:
    """A sparse GeoTIFF in a directory of its own under `scratch`; what is never written stays `nodata`.

    `prepare` gets the open dataset before its first pixel. For one thread; `close` removes what is left.
    """

    def __init__(
        self,
        scratch: Path,
        name: str,
        size: Size,
        dtype: str,
        nodata: float,
        georeference: Georeference,
        prepare: Callable[[Any], None],
    ) -> None:
        self._size, self._nodata = size, nodata
        self._occupied = np.zeros(tiles_across(size), dtype=bool)
        self._directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=scratch))
        self._path = self._directory / f"{name}.tif"
        with writing(self._path):
            profile = scratch_profile(size, dtype, 1, nodata) | georeferencing(georeference)
            self._dataset: Any = rasterio.open(self._path, "w", **profile)
            prepare(self._dataset)
            self._dataset.update_tags(**place_tags(georeference))

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Place `values`, (height, width), at `region`. Raises DiskFull."""
        rows, columns = (range(span.start // TILE, -(-span.stop // TILE)) for span in region.slices())
        for row, column in product(rows, columns):
            # Not of all pixels at once, which may be as many bytes again.
            tile = tile_region(row, column, self._size).intersection(region)
            part = values[tile.slices(region.x, region.y)]
            if not (np.isnan(part) if np.isnan(self._nodata) else part == self._nodata).all():
                self._occupied[row, column] = True
        with writing(self._path):
            # Three axes: of two, rasterio makes a copy first.
            self._dataset.write(values[np.newaxis], [1], window=window_of(region))

    def seal(self, halving: Halving) -> Path:
        """Compute the overviews; nothing can be written afterwards. The file, which has all pixels."""
        with writing(self._path):
            if not self._dataset.closed:
                self._dataset.close()
                build_overviews(self._path, self._occupied, halving, self._nodata)
        return self._path

    def total(self, copy: Path, of_tile: Callable[[NDArray[Any]], Any]) -> Any:
        """The sum of what `of_tile` makes of the pixels of each tile of a copy that should hold something (0: there is
        none), for GDAL may lose tiles on a full disk. `of_tile` is called in two threads at once."""

        def part(places: NDArray[np.int64]) -> Any:
            with rasterio.open(copy) as dataset:
                regions = (tile_region(row, column, self._size) for row, column in places.tolist())
                return sum(of_tile(dataset.read(1, window=window_of(region))) for region in regions)

        with ThreadPoolExecutor(_READERS, "copy") as readers:
            return sum(readers.map(part, np.array_split(np.argwhere(self._occupied), _READERS)))

    def close(self) -> None:
        try:
            with writing(self._path):
                self._dataset.close()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

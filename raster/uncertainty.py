"""uncertainty.tif: how undecided the network was, pixel by pixel."""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from raster.cog import cog_copy, georeferencing, needs_bigtiff, place_tags, scratch_profile, writing
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.overviews import TILE, build_overviews, tile_region, tiles_across, window_of
from raster.whole_file import disk_full


class UncertaintyWriter:
    """Takes the normalised entropy as bands of rows, each pixel once; ends with a float32 COG, NaN = not examined.

    Memory does not follow the raster. For one thread at a time; `close` removes what is left in `scratch`.
    """

    def __init__(self, scratch: Path, size: Size, georeference: Georeference) -> None:
        self._size = size
        self._occupied = np.zeros(tiles_across(size), dtype=bool)
        self._sum = 0.0
        self._directory = Path(tempfile.mkdtemp(prefix="uncertainty-", dir=scratch))
        self._scratch = self._directory / "uncertainty.tif"
        with writing(self._scratch):
            profile = scratch_profile(size, "float32", 1, np.nan) | georeferencing(georeference)
            self._dataset: Any = rasterio.open(self._scratch, "w", **profile)
            self._dataset.update_tags(**place_tags(georeference))
            self._dataset.set_band_description(1, "entropy of the class probabilities, 0 sure to 1 all alike")

    def write(self, region: Region, values: NDArray[np.float32]) -> None:
        """Place `values`, (height, width) in 0..1 or NaN, at `region`. Raises DiskFull."""
        examined = values[~np.isnan(values)]
        if not examined.size:
            return
        self._sum += float(examined.sum(dtype=np.float64))
        rows, columns = region.slices()
        tiles = slice(columns.start // TILE, -(-columns.stop // TILE))
        self._occupied[rows.start // TILE : -(-rows.stop // TILE), tiles] = True
        with writing(self._scratch):
            self._dataset.write(values, 1, window=window_of(region))

    def finish(self, path: Path) -> None:
        """Write the COG at `path` with averaging overviews; its pixels are added up again before it gets its name."""
        with writing(path):
            self._dataset.close()
            build_overviews(self._scratch, self._occupied, mean_halved, np.nan)
            with (
                cog_copy(self._scratch, path, bigtiff=needs_bigtiff(self._size, 4)) as copy,
                rasterio.open(copy) as dataset,
            ):
                found = 0.0
                for row, column in np.argwhere(self._occupied).tolist():
                    values = dataset.read(1, window=window_of(tile_region(row, column, self._size)))
                    found += float(np.nansum(values, dtype=np.float64))
                if not np.isclose(found, self._sum, rtol=1e-9, atol=1e-9):
                    raise disk_full(path, "pixels that were written are not in the file")

    def close(self) -> None:
        try:
            with writing(self._scratch):
                self._dataset.close()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)


def mean_halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the examined pixels of each 2 x 2, in steps of 1/1024 like theirs; NaN only where all four are."""
    squares = np.stack([values[:, y::2, x::2] for y in (0, 1) for x in (0, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's word for four times NaN
        mean: NDArray[np.float32] = np.round(np.nanmean(squares, axis=0) * 1024) / 1024
    return mean.astype(np.float32)

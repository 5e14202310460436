"""uncertainty.tif: how undecided the network was, pixel by pixel."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raster.cog import cog_copy, lost_crs, needs_bigtiff, write_lost_crs, writing
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.scratch import ScratchRaster
from raster.whole_file import disk_full

_MEANING = "entropy of the class probabilities, 0 sure to 1 all alike"


class UncertaintyWriter:
    """Takes the normalised entropy as bands of rows, each pixel once; ends with a float32 COG, NaN = not examined.

    Memory does not follow the raster. For one thread at a time; `close` removes what is left in `scratch`.
    """

    def __init__(self, scratch: Path, size: Size, georeference: Georeference) -> None:
        self._size = size
        self._sum = 0.0
        self._georeference = georeference
        self._raster = ScratchRaster(
            scratch,
            "uncertainty",
            size,
            "float32",
            np.nan,
            georeference,
            lambda dataset: dataset.set_band_description(1, _MEANING),
        )

    def write(self, region: Region, values: NDArray[np.float32]) -> None:
        """Place `values`, (height, width) in 0..1 or NaN, at `region`. Raises DiskFull."""
        examined = values[~np.isnan(values)]
        if not examined.size:
            return
        self._sum += float(examined.sum(dtype=np.float64))
        self._raster.write(region, values)

    def finish(self, path: Path) -> None:
        """Write the COG at `path` with averaging overviews; its pixels are added up again before it gets its name."""
        scratch = self._raster.seal(mean_halved)
        with writing(path), cog_copy(scratch, path, bigtiff=needs_bigtiff(self._size, 4)) as copy:
            found = self._raster.total(copy, lambda tile: float(np.nansum(tile, dtype=np.float64)))
            if not np.isclose(found, self._sum, rtol=1e-9, atol=1e-9):
                raise disk_full(path, "pixels that were written are not in the file")
            crs = lost_crs(copy, self._georeference)
        write_lost_crs(path, crs)

    def close(self) -> None:
        self._raster.close()


def mean_halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the examined pixels of each 2 x 2, in steps of 1/1024 like theirs; NaN only where all four are."""
    squares = np.stack([values[:, y::2, x::2] for y in (0, 1) for x in (0, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's word for four times NaN
        mean: NDArray[np.float32] = np.round(np.nanmean(squares, axis=0) * 1024) / 1024
    return mean.astype(np.float32)

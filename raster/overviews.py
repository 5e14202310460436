"""Overviews computed in memory, from the tiles that hold anything.

GDAL's own mode overviews of a mostly empty mask of 10 Gpx took seven minutes (service-facts.md 6). Here every level is
a sparse GeoTIFF of its own, `x.tif.ovr` beside `x.tif`, `x.tif.ovr.ovr` beside that, which GDAL takes for external
overviews; the COG copy moves them inside.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from foveate.schema import NODATA
from raster.geometry import Region, Size

TILE = 512
"""Side of the tiles of every GeoTIFF that we write."""

Halving = Callable[[NDArray[Any]], NDArray[Any]]
"""(bands, 2h, 2w) -> (bands, h, w)."""


def tiles_across(size: Size) -> tuple[int, int]:
    """Rows and columns of tiles in a raster of this size."""
    return -(-size.height // TILE), -(-size.width // TILE)


def tile_region(row: int, column: int, size: Size) -> Region:
    return Region(column * TILE, row * TILE, TILE, TILE).intersection(Region.of(size))


def window_of(region: Region) -> Window:
    return Window(region.x, region.y, region.width, region.height)


def build_overviews(path: Path, occupied: NDArray[np.bool_], halving: Halving, nodata: float) -> None:
    """Write the chain of overview files of `path`, halving until a level fits one tile.

    occupied: (tile rows, tile columns), which tiles of the full resolution hold anything but `nodata`.
    """
    while True:
        with rasterio.open(path) as fine:
            if max(fine.width, fine.height) <= TILE:
                return
            size = Size(-(-fine.width // 2), -(-fine.height // 2))
            occupied = _halved_occupancy(occupied, tiles_across(size))
            path = path.with_name(path.name + ".ovr")
            profile = fine.profile | {"width": size.width, "height": size.height}
            # A profile tells neither of these.
            profile |= {"crs": None, "transform": None, "sparse_ok": True, "zstd_level": 1}
            with rasterio.open(path, "w", **profile) as coarse:
                for row, column in np.argwhere(occupied).tolist():
                    region = tile_region(row, column, size)
                    pixels = _read_padded(fine, region, nodata)
                    coarse.write(halving(pixels), window=window_of(region))


def mode_halved(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The most frequent class of each 2 x 2 pixels, ties to the lower one; 255 only where all four are 255.

    labels: uint8 (bands, 2h, 2w). Ordering the four values by a sorting network leaves three comparisons, and choosing
    by arithmetic takes as long for noise as for fields of one class.
    """
    left, right = _columns(labels)
    a, b, c, d = left[:, 0::2], right[:, 0::2], left[:, 1::2], right[:, 1::2]
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    first, c = np.minimum(a, c), np.maximum(a, c)
    b, last = np.minimum(b, d), np.maximum(b, d)
    second, third = np.minimum(b, c), np.maximum(b, c)
    mode = _chosen(third, first, (third == last) & (third != NODATA))
    mode = _chosen(second, mode, (second == third) & (second != NODATA))
    return _chosen(first, mode, first == second)


def _columns(labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Every second column from the first one and from the second one on, each in one piece of memory."""
    pairs = np.ascontiguousarray(labels).view("<u2")
    return pairs.astype(np.uint8), (pairs >> 8).astype(np.uint8)


def _chosen(here: NDArray[np.uint8], elsewhere: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """As np.where, in bytes that wrap around: of these a processor adds and multiplies many at once."""
    return elsewhere + (here - elsewhere) * where.view(np.uint8)


def corner_halved(values: NDArray[Any]) -> NDArray[Any]:
    """The top left of each 2 x 2 pixels: neither a chosen index nor a NaN may be averaged."""
    return values[:, 0::2, 0::2]


def _halved_occupancy(occupied: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    padded = np.zeros((2 * shape[0], 2 * shape[1]), dtype=bool)
    padded[: occupied.shape[0], : occupied.shape[1]] = occupied
    return padded[0::2, 0::2] | padded[0::2, 1::2] | padded[1::2, 0::2] | padded[1::2, 1::2]


def _read_padded(fine: Any, region: Region, nodata: float) -> NDArray[Any]:
    """The pixels under `region` of the next coarser level, with nodata beyond an odd border."""
    wanted = Region(2 * region.x, 2 * region.y, 2 * region.width, 2 * region.height)
    there = wanted.intersection(Region(0, 0, fine.width, fine.height))
    pixels = np.full((fine.count, wanted.height, wanted.width), nodata, dtype=fine.dtypes[0])
    rows, columns = there.slices(wanted.x, wanted.y)
    pixels[:, rows, columns] = fine.read(window=window_of(there))
    return pixels

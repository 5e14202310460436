"""Plain tiled TIFFs and Aperio slides tile by tile, without the library that describes them: several times as fast.

The library stays the reference. It says what the file is (levels, spacing, bounds, no data), and once per file a few
tiles read both ways must agree; if they do not, the file is read by the reference. What stands where a sparse file
stores no tile is the reference's business as well, asked once a level, and so are slides with such holes.

Levels lie as their dimensions say: pixel (i, j) of a level of w x h covers [i W/w, (i + 1) W/w) x [j H/h, (j + 1) H/h)
of level 0, W x H. OpenSlide can be asked for whole level-0 positions only, and blends two pixels of a level wherever
its downsample is not whole.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import ImageUnreadable
from foveate.schema import ImageInfo
from raster.agreement import disagreement
from raster.geometry import Region, Size
from raster.image import Pixels, RasterImage, spelled
from raster.limits import Limits
from raster.tiles import TiledPage, tiled_pages, with_transformed_chroma
from raster.verdicts import Verdicts

READER = "direct"
_log = logging.getLogger(__name__)
_DTYPES = frozenset({"uint8", "uint16"})
_SEED_BYTES = 1 << 20
_verdicts: Verdicts[tuple[TiledPage, ...] | None] = Verdicts()
"""The pages by which a file is read directly, or None, by reference."""


class DirectImage:
    """The tiles of `pages`, one page a level, described by `reference`, which it closes."""

    def __init__(self, path: Path, reference: RasterImage, pages: tuple[TiledPage, ...]) -> None:
        self._path, self._reference, self._pages = path, reference, pages
        self._info = reference.info.model_copy(update={"reader": READER})
        self._file: int | None = os.open(path, os.O_RDONLY)
        self._blanks: dict[int, Pixels] = {}

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        page, bands, tiles = self._pages[level], len(self._info.bands), list(self._pages[level].under(region))
        if not any(page.stored(index).any() for index in tiles):
            return self._blank(level, tiles[0], region)
        samples = np.empty((region.height, region.width, page.samples), page.dtype.newbyteorder("="))
        lacking = [index for index in tiles if not self._put(samples, level, index, region)]
        values = samples if bands == page.samples else np.ascontiguousarray(samples[..., :bands])
        valid, decoded = self._valid(level, region, samples), region.size.area
        for index in lacking:
            part = page.place(index).intersection(region)
            decoded -= part.size.area
            # What is stored in some of its planes only is left to the reference.
            stored = page.stored(index).any()
            filled = self._reference.read(level, part) if stored else self._blank(level, index, part)
            values[part.slices(region.x, region.y)] = filled.values
            if valid is not None and filled.valid is not None:
                valid[part.slices(region.x, region.y)] = filled.valid
        return Pixels(values, valid, decoded)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        if self._info.validity == "none":
            return None
        if self._info.validity == "mask":
            return self._reference.read_valid(level, region)
        return self.read(level, region).valid

    def close(self) -> None:
        self.release()
        self._reference.close()

    def release(self) -> None:
        """Close this image's own file, not the reference."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _put(self, samples: NDArray[Any], level: int, index: int, region: Region) -> bool:
        """Decode tile `index` into its place in `samples`; False if the file lacks it, in one of its planes or all."""
        page = self._pages[level]
        if not page.stored(index).all():
            return False
        tile = page.place(index)
        wanted = tile.intersection(region)
        rows, columns = wanted.slices(region.x, region.y)
        inside = wanted.slices(tile.x, tile.y)
        for plane in range(page.planes):
            part = slice(None) if page.planes == 1 else slice(plane, plane + 1)
            samples[rows, columns, part] = self._decoded(level, index + plane * page.tiles, wanted)[inside]
        return True

    def _blank(self, level: int, index: int, region: Region) -> Pixels:
        """`region` as it is where the file stores no tile, such as `index`: everywhere one pixel of the reference's.

        But for a mask, which is stored apart: it may well show data that are all zeros.
        """
        if level not in self._blanks:
            tile = self._pages[level].place(index)
            self._blanks[level] = self._reference.read(level, Region(tile.x, tile.y, 1, 1))
        pixel = self._blanks[level]
        if self._info.validity == "mask":
            valid = self._reference.read_valid(level, region)
        else:
            valid = None if pixel.valid is None else _spread(pixel.valid, region.size)
        return Pixels(_spread(pixel.values, region.size), valid, decoded=0)

    def _decoded(self, level: int, index: int, wanted: Region) -> NDArray[Any]:
        page = self._pages[level]
        count = int(page.counts[index])
        assert self._file is not None, "closed"
        try:
            data = os.pread(self._file, count, int(page.offsets[index]))
            if len(data) < count:
                raise EOFError(f"the file ends {count - len(data)} bytes before the tile does")
            return page.decode(data)
        except Exception as error:
            raise ImageUnreadable(
                f"{self._path.name}: {spelled(level, wanted)} cannot be decoded: {error or type(error).__name__}",
                hint="The image is damaged or cut short; copy or export it again.",
            ) from error

    def _valid(self, level: int, region: Region, samples: NDArray[Any]) -> NDArray[np.bool_] | None:
        if self._info.validity == "none":
            return None
        if self._info.validity == "mask":
            return self._reference.read_valid(level, region)
        if self._info.validity == "alpha":
            return np.asarray(samples[..., -1] > 0)
        assert self._info.nodata is not None, "as `_pages` saw to"
        return _differs(samples, samples.dtype.type(self._info.nodata))


def _spread(pixel: NDArray[Any], size: Size) -> NDArray[Any]:
    """(height, width, …): everywhere `pixel` (1, 1, …)."""
    shape = (*size.shape, *pixel.shape[2:])
    if not pixel.any():
        return np.zeros(shape, pixel.dtype)  # of which the system has pages that cost nothing until they are written
    # Row by row: numpy spreads a single pixel of several samples many times as slowly.
    return np.broadcast_to(np.repeat(pixel, size.width, axis=1), shape).copy()


def _differs(samples: NDArray[Any], nodata: np.generic) -> NDArray[np.bool_]:
    """(height, width): whether any sample of a pixel is another than `nodata`."""
    # Sample by sample: numpy takes ten times as long to reduce a last axis of three.
    differs: NDArray[np.bool_] = samples[..., 0] != nodata
    for k in range(1, samples.shape[2]):
        differs |= samples[..., k] != nodata
    return differs


def direct_or_reference(path: Path, reference: RasterImage, limits: Limits, *, wanted: bool) -> RasterImage:
    """`reference`, which has opened `path`; or, if `wanted`, a faster image in its place where one can be trusted.

    A file whose tiles come out differently is left to the reference; `info.reader` says which it was.
    """
    pages = _verdicts.about([path], reference.info.reader, lambda: _agreeing(path, reference, limits))
    return reference if pages is None or not wanted else DirectImage(path, reference, pages)


def _agreeing(path: Path, reference: RasterImage, limits: Limits) -> tuple[TiledPage, ...] | None:
    """The pages of the file's levels as they come out like the reference's; None: in no way."""
    plain = _pages(path, reference.info, limits)
    for pages in (plain, None if plain is None else with_transformed_chroma(plain)):
        if pages is None:
            continue
        direct = DirectImage(path, reference, pages)
        try:
            reason = disagreement(direct, reference, pages, _seed(path))
        finally:
            direct.release()
        if reason is None:
            return pages
        _log.info("%s: tiles read directly are not those of %s: %s", path.name, reference.info.reader, reason)
    return None


def _pages(path: Path, info: ImageInfo, limits: Limits) -> tuple[TiledPage, ...] | None:
    """The pages of the file's levels, if the reference would do nothing with their samples but hand them over."""
    whole_nodata = info.nodata is not None and info.nodata.is_integer()
    if info.dtype not in _DTYPES or info.frame == "exif-oriented":
        return None
    if info.validity == "bounds" or (info.validity == "nodata" and not whole_nodata):
        return None
    samples = len(info.bands) + (info.validity == "alpha")
    pages = tiled_pages(path, [Size(level.width, level.height) for level in info.levels], samples)
    if pages is None or pages[0].dtype.newbyteorder("=") != info.dtype:
        return None
    if info.reader == "openslide" and any((page.counts == 0).any() for page in pages):
        # Scanners' holes spoil the coarser tiles above them; OpenSlide draws all of these anew from finer ones.
        return None
    return pages if all(page.tile_bytes <= limits.block_bytes for page in pages) else None


def _seed(path: Path) -> int:
    """The same for the same file, whatever its name."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_SEED_BYTES))
        file.seek(max(0, path.stat().st_size - _SEED_BYTES))
        digest.update(file.read())
    return int.from_bytes(digest.digest()[:8], "big")

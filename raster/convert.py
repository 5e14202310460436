"""A tiled pyramid for images that would otherwise be decoded over and over, or all at once.

One pass from top to bottom decodes every block of the source once, and each level is made of the one before it: sparse
scratch GeoTIFFs, one a level, coarser pixels being means of valid ones (`raster.pyramid`). They carry pixels and
validity only: names, spacing and place stay with the original's description. Where level 0 is well stored and only
coarser levels are missing, the first is half its size, and level 0 is read where it is.

Memory: about three times `_BAND_BYTES`, and what the reader needs for two rows of its own blocks, whatever the image.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from foveate.errors import ImageUnreadable
from foveate.schema import ImageInfo
from raster.cog import CACHE_BYTES, needs_bigtiff, scratch_profile, writing
from raster.geometry import Region, Size
from raster.image import ImageRef, Pixels, RasterImage, open_image
from raster.overviews import TILE, window_of
from raster.pyramid import Pyramid, halved
from raster.source import check_damage
from raster.whole_file import disk_full, whole_file, write_json

_UNTILED_PIXELS = 16_000_000
_FLAT_PIXELS = 64_000_000
_LARGE_BLOCK_PIXELS = 2048 * 2048
_GAP = 4.1
_BAND_BYTES = 64 << 20
_SMALLEST_SIDE = 256
_SEQUENTIAL = frozenset({"JPEG", "PNG", "GIF", "BMP", "WEBP"})
"""Formats that are decoded from the first row on: after an error nothing that follows can be trusted."""


@dataclass(frozen=True)
class Converted:
    """The files of the levels, finest first; and the level-0 regions of the original that could not be decoded, which
    are zeros in them.
    """

    paths: tuple[Path, ...]
    damaged: tuple[Region, ...]
    halved: bool
    """Whether the first is half the size of the original, whose level 0 stays where it is."""

    def open(self, original: ImageRef) -> Pyramid:
        """The image as it is to be read."""
        return Pyramid.open([*([original] if self.halved else []), *map(_copy_ref, self.paths)])


@dataclass(frozen=True)
class _Passage:
    """How an image is walked: columns `step` wide from top to bottom, read by `read_rows`, written by `tile_rows`.

    `halved`: written at half the size; `step` and `tile_rows` are those of what is read all the same.
    """

    step: int
    read_rows: int
    tile_rows: int
    cache_bytes: int
    halved: bool

    @property
    def scale(self) -> int:
        return 2 if self.halved else 1

    def copied(self, info: ImageInfo) -> Size:
        """Of what is written."""
        return Size(-(-info.width // self.scale), -(-info.height // self.scale))


def needs_conversion(info: ImageInfo) -> str | None:
    """What must be made before anything is read, and why; None where the file will do."""
    reason = _ill_stored(info) or _lacks_levels(info)
    if reason is None:
        return None
    return f"{'a tiled copy is' if _ill_stored(info) else 'coarser levels are'} made first: {reason}"


def _ill_stored(info: ImageInfo) -> str | None:
    """Why level 0 cannot be read piece by piece."""
    tile_w, tile_h = info.levels[0].tile
    if info.width * info.height <= _UNTILED_PIXELS:
        return None
    if info.driver in _SEQUENTIAL or info.reader == "pillow":
        return f"{info.driver} can only be decoded from its first row on"
    if tile_w >= info.width:
        return "its pixels are stored in strips, not in tiles"
    if tile_w * tile_h > _LARGE_BLOCK_PIXELS:
        return f"its tiles of {tile_w} x {tile_h} px are too large"
    return None


def _lacks_levels(info: ImageInfo) -> str | None:
    for finer, coarser in pairwise(info.levels):
        gap = max(finer.width / coarser.width, finer.height / coarser.height)
        if gap > _GAP and finer.width * finer.height > _FLAT_PIXELS:
            return f"its pyramid lacks levels between {finer.width} and {coarser.width} px of width"
    last = info.levels[-1]
    if last.width * last.height > _FLAT_PIXELS:
        return "it has no coarser levels" if len(info.levels) == 1 else "its coarsest level is too large"
    return None


def convert(ref: ImageRef, info: ImageInfo, path: Path, on_progress: Callable[[float], None]) -> Converted:
    """Make a pyramid of `ref`, or only what is below its level 0 where that is what is missing, at and beside `path`.

    `on_progress` gets shares from 0 to 1 and may raise to stop. Valid pixels of level 0 are the reader's own; the
    others are 0. Raises ImageDamaged above 1 % of undecodable tiles, ImageUnreadable for a sequential format that
    breaks off, DiskFull.
    """
    below = _ill_stored(info) is None and _lacks_levels(info) is not None
    paths = _paths(path, _count(info, below))
    refs = [ref, *map(_copy_ref, paths)]
    # The level that each pass reads: where all is copied, level 0 twice.
    levels = [k if below else max(0, k - 1) for k in range(len(paths))]
    damaged: list[Region] = []
    for k, (level, out) in enumerate(zip(levels, paths, strict=True)):

        def report(share: float, k: int = k, level: int = level) -> None:
            read = sum(0.25**one for one in levels[:k]) + share * 0.25**level
            on_progress(read / sum(0.25**one for one in levels))

        found = _copied(refs[k], out, below or k > 0, report)
        damaged += [_enlarged(region, 2**level, info) for region in found]
    regions = [[r.x, r.y, r.width, r.height] for r in damaged]
    # It comes last: without it there is no pyramid.
    write_json(_record(path), {"damaged": regions, "halved": below, "levels": len(paths)})
    on_progress(1.0)
    return Converted(tuple(paths), tuple(damaged), below)


def converted_at(path: Path) -> Converted | None:
    """What an earlier `convert` left at `path`, if it was finished."""
    if not _record(path).is_file():
        return None
    record = json.loads(_record(path).read_text())
    damaged = tuple(Region(*region) for region in record["damaged"])
    return Converted(tuple(_paths(path, record["levels"])), damaged, record["halved"])


def _paths(path: Path, count: int) -> list[Path]:
    return [path if k == 0 else path.with_name(f"{path.stem}-{k}{path.suffix}") for k in range(count)]


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def _copy_ref(path: Path) -> ImageRef:
    return ImageRef(path, sidecars=False, reader="direct")


def _count(info: ImageInfo, below: bool) -> int:
    """Levels to make: until the smaller side is below 256 px, and one more than the first at least."""
    first = min(info.width, info.height) / (2 if below else 1)
    return 1 + max(1, math.ceil(math.log2(first / _SMALLEST_SIDE)))


def _enlarged(region: Region, scale: int, info: ImageInfo) -> Region:
    whole = Region(0, 0, info.width, info.height)
    return Region(*(scale * side for side in (region.x, region.y, region.width, region.height))).intersection(whole)


def _copied(ref: ImageRef, path: Path, halve: bool, on_progress: Callable[[float], None]) -> list[Region]:
    """Write level 0 of `ref`, or its half, to `path`; the regions that could not be decoded."""
    with whole_file(path) as partial:
        with closing(open_image(ref)) as image:
            passage = _passage(image.info, halved=halve)
            with writing(path), rasterio.Env(**_environment(passage)):
                damaged = _copy_level_0(image, partial, passage, on_progress)
        _check_whole(partial)
    return damaged


def _bytes_per_pixel(info: ImageInfo) -> int:
    return len(info.bands) * np.dtype(info.dtype).itemsize


def _passage(info: ImageInfo, *, halved: bool) -> _Passage:
    """Wide enough to decode every block once, low enough to stay within the memory."""
    tile_w, tile_h = info.levels[0].tile
    pixel, scale = _bytes_per_pixel(info), 2 if halved else 1
    step = info.width
    if tile_w < info.width:
        aligned = math.lcm(tile_w, scale * TILE)
        step = aligned * max(1, _BAND_BYTES // (max(tile_h, TILE) * pixel * aligned))
    step = min(step, info.width)
    tile_rows = scale * TILE
    while tile_rows > scale * 16 and tile_rows * step * pixel > _BAND_BYTES:
        tile_rows //= 2
    block_row = tile_h * step * pixel
    # Blocks too tall to be held as pixels are read in parts, and decoded once because GDAL's cache holds them.
    read_rows = tile_rows if block_row > _BAND_BYTES else tile_h * max(1, tile_rows // tile_h)
    cache_bytes = max(CACHE_BYTES, 2 * block_row if block_row > _BAND_BYTES else 0)
    return _Passage(step, read_rows, tile_rows, cache_bytes, halved)


def _environment(passage: _Passage) -> dict[str, Any]:
    return {"GDAL_CACHEMAX": passage.cache_bytes, "GDAL_TIFF_INTERNAL_MASK": "YES"}


def _copy_level_0(
    image: RasterImage, path: Path, passage: _Passage, on_progress: Callable[[float], None]
) -> list[Region]:
    info = image.info
    damaged: list[Region] = []
    with rasterio.open(path, "w", **_profile(info, passage)) as copy:
        copy.colorinterp = [_interpretation(band) for band in info.bands]
        if info.validity != "none":
            # A mask that is never written would not exist, and then every pixel would be valid.
            copy.write_mask(np.zeros((1, 1), np.uint8), window=window_of(Region(0, 0, 1, 1)))
        for left in range(0, info.width, passage.step):
            column = Region.between(left, 0, min(left + passage.step, info.width), info.height)
            for top, pixels in _slabs(image, column, passage, damaged):
                written = halved(pixels) if passage.halved else pixels
                place = left // passage.scale, top // passage.scale
                _write_tiles(copy, written, *place, masked=info.validity != "none")
                done = left * info.height + (top + pixels.values.shape[0]) * column.width
                on_progress(done / (info.width * info.height))
    return sorted(damaged)


def _profile(info: ImageInfo, passage: _Passage) -> dict[str, Any]:
    size = passage.copied(info)
    return scratch_profile(size, info.dtype, len(info.bands), nodata=0) | {
        "nodata": None,
        "blockysize": passage.tile_rows // passage.scale,
        "interleave": "pixel",
        "photometric": "RGB" if info.bands == ["red", "green", "blue"] else "MINISBLACK",
        "bigtiff": "YES" if needs_bigtiff(size, _bytes_per_pixel(info)) else "NO",
    }


def _interpretation(band: str) -> ColorInterp:
    return ColorInterp[band] if band in ("red", "green", "blue", "gray") else ColorInterp.undefined


def _slabs(
    image: RasterImage, column: Region, passage: _Passage, damaged: list[Region]
) -> Iterator[tuple[int, Pixels]]:
    """(first row, pixels) of a column in slabs of `tile_rows`, the last one lower, each source block read once."""
    top, held = 0, None
    for row in range(0, column.height, passage.read_rows):
        part = Region.between(column.x, row, column.x1, min(row + passage.read_rows, column.height))
        piece = _read(image, part, damaged)
        held = piece if held is None else _stacked(held, piece)
        while (rows := held.values.shape[0]) >= passage.tile_rows or (rows and part.y1 == column.height):
            yield top, _rows(held, 0, passage.tile_rows)
            top += min(rows, passage.tile_rows)
            held = _rows(held, passage.tile_rows, rows)


def _rows(pixels: Pixels, start: int, stop: int) -> Pixels:
    return Pixels(pixels.values[start:stop], None if pixels.valid is None else pixels.valid[start:stop])


def _stacked(upper: Pixels, lower: Pixels) -> Pixels:
    if not upper.values.shape[0]:
        return lower
    values = np.concatenate([upper.values, lower.values])
    if upper.valid is None and lower.valid is None:
        return Pixels(values, None)
    return Pixels(values, np.concatenate([_validity(upper), _validity(lower)]))


def _validity(pixels: Pixels) -> NDArray[np.bool_]:
    return np.ones(pixels.values.shape[:2], bool) if pixels.valid is None else pixels.valid


def _read(image: RasterImage, region: Region, damaged: list[Region]) -> Pixels:
    """The pixels of a region of level 0; block by block where it cannot be decoded whole."""
    try:
        return image.read(0, region)
    except ImageUnreadable as error:
        if image.info.driver in _SEQUENTIAL or image.info.reader == "pillow":
            raise
        reason = error.message
    values = np.zeros((*region.size.shape, len(image.info.bands)), image.info.dtype)
    valid = None if image.info.validity == "none" else np.zeros(region.size.shape, bool)
    for block in _blocks(region, *image.info.levels[0].tile):
        try:
            pixels = image.read(0, block)
        except ImageUnreadable:
            damaged.append(block)
            check_damage(sorted(damaged), image.info, reason)
            continue
        values[block.slices(region.x, region.y)] = pixels.values
        if valid is not None:
            valid[block.slices(region.x, region.y)] = _validity(pixels)
    return Pixels(values, valid)


def _blocks(region: Region, tile_w: int, tile_h: int) -> Iterator[Region]:
    for y in range(region.y - region.y % tile_h, region.y1, tile_h):
        for x in range(region.x - region.x % tile_w, region.x1, tile_w):
            yield Region(x, y, tile_w, tile_h).intersection(region)


def _write_tiles(copy: Any, pixels: Pixels, left: int, top: int, *, masked: bool) -> None:
    """Write what is not empty; a tile that is never written reads as zeros, and as no data where there is a mask."""
    values, valid = pixels.values, _validity(pixels) if masked else None
    if valid is not None and not valid.any():
        return
    for x in range(0, values.shape[1], TILE):
        tile = values[:, x : x + TILE]
        window = window_of(Region(left + x, top, tile.shape[1], tile.shape[0]))
        if valid is not None:
            inside = valid[:, x : x + TILE]
            if not inside.any():
                continue
            copy.write_mask(inside.astype(np.uint8) * 255, window=window)
            tile = np.where(inside[:, :, None], tile, np.zeros((), tile.dtype))
        if tile.any():
            copy.write(np.ascontiguousarray(np.moveaxis(tile, 2, 0)), window=window)


def _check_whole(path: Path) -> None:
    """DiskFull unless every tile that the file's directories name lies inside it: GDAL may lose an error at the end."""
    size = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as file:
            ends = [
                offset + count
                for page in file.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
    except (tifffile.TiffFileError, ValueError) as error:
        raise disk_full(path, str(error)) from error
    if max(ends, default=0) > size:
        raise disk_full(path, f"it ends at byte {size}, and its last tile at {max(ends)}")

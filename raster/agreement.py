"""Whether two readers show the same pixels in the same places: by a few tiles of every level."""

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from foveate.errors import ImageUnreadable
from foveate.schema import ImageInfo
from raster.geometry import Region
from raster.image import RasterImage
from raster.tiles import TiledPage

_TILES = 6
"""A level, half of them among the fullest: glass and water look alike wherever they are."""
_FULLEST = 0.1
_SIDE = 256
"""Of each tile at most so many rows and columns are compared."""
_MEAN, _LARGEST = 1.0, 10
"""Grey levels that two decoders of one JPEG may differ by: its standard leaves the rounding to them."""
_VALID = 0.001
_MARGIN = 2
"""Pixels left out at a tile's edges: OpenSlide blends neighbours there, and shifted tiles must not leave it."""
_SHIFTS = [shift for shift in product((-1, 0, 1), repeat=2) if shift != (0, 0)]


def disagreement(direct: RasterImage, reference: RasterImage, pages: tuple[TiledPage, ...], seed: int) -> str | None:
    """Why `direct` must not stand for `reference`, in words; None if it may.

    On tiles drawn by `seed` at every level: no shift fits better than none, colours differ by at most 1 grey level in
    the mean and 10 at most, validity is the same, and a tile is damaged for both or for neither.
    """
    rng = np.random.default_rng(seed)
    for level, page in enumerate(pages):
        shifted = np.zeros(len(_SHIFTS) + 1)
        for index in _drawn(page, rng):
            place = page.place(index)
            region = Region(place.x, place.y, min(place.width, _SIDE), min(place.height, _SIDE))
            reason = _compared(direct, reference, level, region, shifted)
            if reason is not None:
                return f"{reason} at ({region.x}, {region.y}) of level {level}"
        if (shifted[1:] < shifted[0]).any():
            return f"level {level} is shifted"
    return None


def _drawn(page: TiledPage, rng: np.random.Generator) -> list[int]:
    """Some of the tiles that the file stores."""
    counts = page.counts[: page.tiles]
    stored = np.flatnonzero(counts)
    fullest = stored[np.argsort(counts[stored], kind="stable")[::-1]][: max(_TILES, math.ceil(_FULLEST * len(stored)))]
    half = _TILES // 2
    drawn = {int(k) for some in (fullest, stored) for k in rng.permutation(some)[:half]}
    return sorted(drawn)


def _compared(
    direct: RasterImage, reference: RasterImage, level: int, region: Region, shifted: NDArray[np.float64]
) -> str | None:
    """Why one region differs; adds the differences at no shift and at each of `_SHIFTS` to `shifted`."""
    mine, its = _read(direct, level, region), _read(reference, level, region)
    if mine is None or its is None:
        return None if mine is its else "a tile is damaged for one of two readers"
    (values, valid), (others, others_valid) = mine, its
    if valid is not None and others_valid is not None and (valid != others_valid).mean() > _VALID:
        return "no data lies elsewhere"
    values = _moved(values, _offset(reference.info, level, region))
    if min(region.width, region.height) <= 2 * _MARGIN:
        return None
    inner = others[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    seen = np.ones(inner.shape[:2], np.bool_) if valid is None else valid[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    if not seen.any():
        return None
    here = np.abs(_window(values, 0, 0) - inner)[seen]
    if here.mean() > _MEAN or here.max() > _LARGEST:
        return f"its colours differ by {here.mean():.1f} grey levels in the mean, {here.max():.0f} at most,"
    shifted += [here.mean(), *(np.abs(_window(values, *shift) - inner)[seen].mean() for shift in _SHIFTS)]
    return None


def _read(
    image: RasterImage, level: int, region: Region
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None] | None:
    try:
        pixels = image.read(level, region)
    except ImageUnreadable:
        return None
    return pixels.values.astype(np.float32), pixels.valid


def _window(values: NDArray[np.float32], down: int, across: int) -> NDArray[np.float32]:
    height, width = values.shape[:2]
    return values[_MARGIN + down : height - _MARGIN + down, _MARGIN + across : width - _MARGIN + across]


def _offset(info: ImageInfo, level: int, region: Region) -> tuple[float, float]:
    """How far right and down of `region` OpenSlide reads, in level pixels, under 1/2: it takes whole level-0 places.

    A level's downsample is the mean of both axes' for OpenSlide (openslide.org/api/openslide_8h).
    """
    if info.reader != "openslide":
        return 0.0, 0.0
    downsample = sum(info.levels[level].downsample) / 2
    return tuple(round(k * downsample) / downsample - k for k in (region.x, region.y))  # type: ignore[return-value]


def _moved(values: NDArray[np.float32], offset: tuple[float, float]) -> NDArray[np.float32]:
    """`values` read so far right and down of their places, linearly; the outermost pixels come out wrong."""
    for axis, distance in ((1, offset[0]), (0, offset[1])):
        if abs(distance) < 1e-6:
            continue
        step = 1 if distance > 0 else -1
        neighbour = np.roll(values, -step, axis)
        values = values * (1 - abs(distance)) + neighbour * abs(distance)
    return values

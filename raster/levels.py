"""Which pages of a file are true reductions of its level 0.

GDAL takes the label and the macro of an SVS for overviews, and some writers leave an overview's alpha empty; a level is
believed only if its shape and its pixels say so.
"""

from collections.abc import Iterable

import numpy as np

from raster.geometry import Region, Size
from raster.image import Pixels, RasterImage

_SIDE = 24
_VALID_SHARE = 0.25
_DEVIATIONS = 0.5
_RELATIVE = 0.02


def is_reduction(full: Size, level: Size) -> bool:
    """Whether `level` has the shape of a smaller `full`; two pixels of rounding are allowed on each side."""
    if level.width > full.width or level.height > full.height or level == full:
        return False
    skew = abs(level.width * full.height - level.height * full.width)
    return skew <= 2 * (full.width + full.height)


def trusted_levels(image: RasterImage, places: Iterable[tuple[int, int]]) -> int:
    """How many levels of `image`, counted from the finest, show the same picture.

    Each level is compared with the next finer one around `places` (x, y in level-0 pixels): mean colour, which any
    resampling keeps, and the share of valid pixels, which lies between that of pixels whose finer ones are all valid
    and that of pixels with any such. Another picture has others.
    """
    spots = list(places)
    for level in range(1, len(image.info.levels)):
        if not all(_agree(image, level, x, y) for x, y in spots):
            return level
    return len(image.info.levels)


def _agree(image: RasterImage, level: int, x: int, y: int) -> bool:
    finer, coarser = image.info.levels[level - 1], image.info.levels[level]
    width, height = min(_SIDE, coarser.width), min(_SIDE, coarser.height)
    left = min(max(0, int(x / coarser.downsample[0]) - width // 2), coarser.width - width)
    top = min(max(0, int(y / coarser.downsample[1]) - height // 2), coarser.height - height)
    across, down = finer.width / coarser.width, finer.height / coarser.height
    wide = Region.snapped_out(left * across, top * down, (left + width) * across, (top + height) * down)
    fine = image.read(level - 1, wide.intersection(Region(0, 0, finer.width, finer.height)))
    coarse = image.read(level, Region(left, top, width, height))
    return _alike(fine, coarse)


def _alike(fine: Pixels, coarse: Pixels) -> bool:
    fewest, most = _valid_shares(fine, coarse.values.shape[:2])
    if not fewest - _VALID_SHARE <= _valid_shares(coarse, coarse.values.shape[:2])[0] <= most + _VALID_SHARE:
        return False
    a, b = _data(fine), _data(coarse)
    if not len(a) or not len(b):
        return True
    difference = np.abs(a.mean(axis=0) - b.mean(axis=0))
    scale = np.maximum(np.abs(a.mean(axis=0)), np.abs(b.mean(axis=0)))
    rounding = 1.0 if np.issubdtype(fine.values.dtype, np.integer) else 0.0
    return bool(np.all(difference <= _DEVIATIONS * a.std(axis=0) + _RELATIVE * scale + rounding))


def _valid_shares(pixels: Pixels, shape: tuple[int, ...]) -> tuple[float, float]:
    """Reduced to `shape`: the shares of pixels that hold valid ones alone, and that hold any."""
    if pixels.valid is None:
        return 1.0, 1.0
    starts = [np.arange(small) * large // small for large, small in zip(pixels.valid.shape, shape, strict=True)]
    every, some = (
        reduction.reduceat(reduction.reduceat(pixels.valid, starts[0], axis=0), starts[1], axis=1)
        for reduction in (np.logical_and, np.logical_or)
    )
    return float(every.mean()), float(some.mean())


def _data(pixels: Pixels) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    values = pixels.values.reshape(-1, pixels.values.shape[2])
    if pixels.valid is not None:
        values = values[pixels.valid.ravel()]
    return values.astype(np.float64)

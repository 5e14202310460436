"""One image out of several files, each half the size of the one before; and how a level is halved."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import ImageInfo, LevelInfo
from raster.geometry import Region, Size
from raster.image import ImageRef, Pixels, RasterImage, open_image

__all__ = ["Pyramid", "halved"]

_PART = Size(2048, 64)
"""Pixels that are halved at once: what is between fits a processor's cache, and what is all valid or not is found."""
_SUMS = {"uint8": np.uint16, "uint16": np.uint32, "float32": np.float64, "float64": np.float64}
"""Types that hold the sums of four pixels; of all others it is int64."""


class Pyramid:
    """Level 0 of each of `images` as a level; described by the first; closes all.

    Pixel (i, j) of level k covers [i 2^k, (i + 1) 2^k) x [j 2^k, (j + 1) 2^k) of level 0; the last ones may reach
    beyond it.
    """

    def __init__(self, images: Sequence[RasterImage]) -> None:
        self._images = images
        levels = [
            LevelInfo(width=level.width, height=level.height, downsample=(2.0**k, 2.0**k), tile=level.tile)
            for k, level in enumerate(image.info.levels[0] for image in images)
        ]
        self._info = images[0].info.model_copy(update={"levels": levels})

    @classmethod
    def open(cls, refs: Sequence[ImageRef]) -> "Pyramid":
        """Of the images behind `refs`, finest first. Raises what `open_image` does."""
        with ExitStack() as opened:
            images = [opened.enter_context(closing(open_image(ref))) for ref in refs]
            opened.pop_all()
        return cls(images)

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        return self._images[level].read(0, region)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return self._images[level].read_valid(0, region)

    def close(self) -> None:
        for image in self._images:
            image.close()


def halved(pixels: Pixels) -> Pixels:
    """Means of the valid pixels of 2 x 2, integers rounded half up; valid where one of them is.

    Odd sides are rounded up, and the last row or column is the mean of the pixels that are there.
    """
    rows, columns, bands = pixels.values.shape
    size = -(-rows // 2), -(-columns // 2)
    values = np.empty((*size, bands), pixels.values.dtype)
    valid = None if pixels.valid is None else np.empty(size, bool)
    for y, x in product(range(0, rows, _PART.height), range(0, columns, _PART.width)):
        part = slice(y, y + _PART.height), slice(x, x + _PART.width)
        out = slice(y // 2, (y + _PART.height) // 2), slice(x // 2, (x + _PART.width) // 2)
        seen = None if pixels.valid is None else pixels.valid[part]
        values[out], found = _halved_part(pixels.values[part], seen)
        if valid is not None:
            valid[out] = found
    return Pixels(values, valid)


def _halved_part(values: NDArray[Any], seen: NDArray[np.bool_] | None) -> tuple[NDArray[Any], Any]:
    """The means, and where there are any, or whether; short ways for what is all valid, or all not."""
    if seen is None or seen.all():
        return _divided(_summed(_evened(values, "edge")), 4), True
    if not seen.any():
        return np.zeros((), values.dtype), False
    seen = _evened(seen, "constant")
    counts = _summed(seen.astype(np.uint8))[..., None]
    sums = _summed(np.where(seen[..., None], _evened(values, "edge"), np.zeros((), values.dtype)))
    return _divided(sums, np.maximum(counts, 1)), counts[..., 0] > 0


def _evened(values: NDArray[Any], mode: Any) -> NDArray[Any]:
    """With a row and a column more where these are odd: the last again ("edge"), or none of it ("constant")."""
    more = values.shape[0] % 2, values.shape[1] % 2
    if not any(more):
        return values
    return np.pad(values, [(0, more[0]), (0, more[1]), *[(0, 0)] * (values.ndim - 2)], mode)


def _summed(values: NDArray[Any]) -> NDArray[Any]:
    """Sums of 2 x 2."""
    sums: NDArray[Any] = values[::2, ::2].astype(_SUMS.get(values.dtype.name, np.int64))
    for y, x in ((0, 1), (1, 0), (1, 1)):
        sums += values[y::2, x::2]
    return sums


def _divided(sums: NDArray[Any], count: Any) -> NDArray[Any]:
    """`sums` over `count`; of integers, rounded half up."""
    means: NDArray[Any] = sums / count if sums.dtype.kind == "f" else (sums + count // 2) // count
    return means

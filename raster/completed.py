"""An image with the levels that its file lacks: level 0 stays where it is, half its size and less come from a copy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import ImageInfo, LevelInfo
from raster.geometry import Region
from raster.image import Pixels, RasterImage

__all__ = ["CompletedImage", "halved"]

_STRIP = 64
"""Rows that are halved at once, so that what is between stays small."""


class CompletedImage:
    """Level 0 of `original` with the levels of `copy`, which begins at half its size; closes both."""

    def __init__(self, original: RasterImage, copy: RasterImage) -> None:
        self._original, self._copy = original, copy
        full = original.info
        levels = [
            LevelInfo(
                width=level.width,
                height=level.height,
                downsample=(2 * level.downsample[0], 2 * level.downsample[1]),
                tile=level.tile,
            )
            for level in copy.info.levels
        ]
        self._info = full.model_copy(update={"levels": [full.levels[0], *levels]})

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        return self._copy.read(level - 1, region) if level else self._original.read(0, region)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return self._copy.read_valid(level - 1, region) if level else self._original.read_valid(0, region)

    def close(self) -> None:
        self._original.close()
        self._copy.close()


def halved(pixels: Pixels) -> Pixels:
    """Means of the valid pixels of 2 x 2, rounded half up; valid where one of them is. uint8 or uint16, sides even."""
    rows, columns, bands = pixels.values.shape
    values = np.empty((rows // 2, columns // 2, bands), pixels.values.dtype)
    valid = None if pixels.valid is None else np.empty(values.shape[:2], bool)
    for top in range(0, rows, _STRIP):
        part, out = slice(top, top + _STRIP), slice(top // 2, (top + _STRIP) // 2)
        if pixels.valid is None or valid is None:
            values[out] = (_summed(pixels.values[part]) + 2) // 4
            continue
        if not pixels.valid[part].any():
            values[out], valid[out] = 0, False
            continue
        seen = pixels.valid[part, :, None]
        counts = _summed(seen.astype(np.uint8))
        few = np.maximum(counts, 1)
        values[out] = (_summed(np.where(seen, pixels.values[part], np.zeros((), values.dtype))) + few // 2) // few
        valid[out] = counts[..., 0] > 0
    return Pixels(values, valid)


def _summed(values: NDArray[Any]) -> NDArray[Any]:
    """(rows / 2, columns / 2, bands), uint16 or uint32, whichever just holds it: sums of 2 x 2."""
    sums: NDArray[Any] = values[::2, ::2].astype(np.uint16 if values.dtype == np.uint8 else np.uint32)
    for y, x in ((0, 1), (1, 0), (1, 1)):
        sums += values[y::2, x::2]
    return sums

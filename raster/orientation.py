"""An image whose pixels are stored rotated or mirrored, seen upright (EXIF tag 274, which is TIFF's)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import ImageInfo, LevelInfo
from raster.geometry import Region
from raster.image import Pixels, RasterImage


def upright(image: RasterImage, orientation: int) -> RasterImage:
    """`image` as a viewer shows it; itself where the tag is 1 or nonsense."""
    return OrientedImage(image, orientation) if 2 <= orientation <= 8 else image


class OrientedImage:
    """Another image through EXIF orientation 2 to 8; `frame` is "exif-oriented".

    Orientations 5 to 8 swap the axes: what is stored in full-width strips is then read best in full-height columns,
    and `LevelInfo.tile` says so.
    """

    def __init__(self, image: RasterImage, orientation: int) -> None:
        # Stored rows and columns become displayed ones by: swap the axes, then mirror left-right, then upside down.
        self._swap = orientation >= 5
        self._mirror_x = orientation in (2, 3, 6, 7)
        self._mirror_y = orientation in (3, 4, 7, 8)
        self._image = image
        self._info = self._oriented_info(image.info)

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        pixels = self._image.read(level, self._stored(level, region))
        valid = None if pixels.valid is None else self._turned(pixels.valid)
        return Pixels(self._turned(pixels.values), valid)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        valid = self._image.read_valid(level, self._stored(level, region))
        return None if valid is None else self._turned(valid)

    def close(self) -> None:
        self._image.close()

    def _oriented_info(self, info: ImageInfo) -> ImageInfo:
        if not self._swap:
            return info.model_copy(update={"frame": "exif-oriented"})
        levels = [
            LevelInfo(width=one.height, height=one.width, downsample=one.downsample[::-1], tile=one.tile[::-1])
            for one in info.levels
        ]
        spacing = info.spacing and info.spacing.model_copy(update={"x": info.spacing.y, "y": info.spacing.x})
        swapped = {"width": info.height, "height": info.width, "levels": levels, "spacing": spacing}
        return info.model_copy(update={"frame": "exif-oriented", **swapped})

    def _stored(self, level: int, region: Region) -> Region:
        shown = self._info.levels[level]
        x = shown.width - region.x1 if self._mirror_x else region.x
        y = shown.height - region.y1 if self._mirror_y else region.y
        if self._swap:
            return Region(y, x, region.height, region.width)
        return Region(x, y, region.width, region.height)

    def _turned(self, stored: NDArray[Any]) -> NDArray[Any]:
        shown = stored.swapaxes(0, 1) if self._swap else stored
        if self._mirror_x:
            shown = shown[:, ::-1]
        if self._mirror_y:
            shown = shown[::-1]
        return np.ascontiguousarray(shown)

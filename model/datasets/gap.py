"""Touching objects kept apart: a network that sees their seam as another class draws them as two."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foveate.schema import ImageInfo
from raster.geometry import Region
from raster.image import Pixels, RasterImage

__all__ = ["GapImage"]

_NONE = np.iinfo(np.int32).max


class GapImage:
    """Classes in which object pixels within `gap` pixels, along rows and columns, of another object are `value`.

    `objects` holds the numbers of single objects, 0 elsewhere. Owns and closes both.
    """

    def __init__(self, classes: RasterImage, objects: RasterImage, gap: int, value: int) -> None:
        self._classes, self._objects, self._gap, self._value = classes, objects, gap, value

    @property
    def info(self) -> ImageInfo:
        return self._classes.info.model_copy(update={"levels": self._classes.info.levels[:1]})

    def read(self, level: int, region: Region) -> Pixels:
        values = self._classes.read(level, region).values.copy()
        image = Region(0, 0, self.info.width, self.info.height)
        wide = region.grown(self._gap).intersection(image)
        numbers = self._objects.read(level, wide).values[..., 0]
        side = 2 * self._gap + 1
        highest = ndimage.maximum_filter(numbers, side)
        lowest = ndimage.minimum_filter(np.where(numbers == 0, _NONE, numbers), side)
        seam = ((numbers > 0) & (highest != lowest))[region.slices(wide.x, wide.y)]
        values[seam] = self._value
        return Pixels(values, None)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None

    def close(self) -> None:
        self._classes.close()
        self._objects.close()

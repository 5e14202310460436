"""Empty glass, told from tissue by its colour where the annotators only drew something else."""

import numpy as np
from numpy.typing import NDArray

from foveate.schema import ImageInfo
from model.datasets.config import Glass
from raster.geometry import Region
from raster.image import Pixels, RasterImage
from raster.source import Plane, Source

__all__ = ["GlassImage"]


class GlassImage:
    """Classes, with empty glass as a class of its own. Owns and closes the classes, not `source`, the image itself."""

    def __init__(self, classes: RasterImage, source: Source, rule: Glass) -> None:
        self._classes, self._source, self._rule = classes, source, rule

    @property
    def info(self) -> ImageInfo:
        return self._classes.info.model_copy(update={"levels": self._classes.info.levels[:1]})

    def read(self, level: int, region: Region) -> Pixels:
        values = self._classes.read(level, region).values.copy()
        here = values[..., 0]
        here[(here == self._rule.within) & self._is_glass(region)] = self._rule.value
        return Pixels(values, None)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None

    def close(self) -> None:
        self._classes.close()

    def _is_glass(self, region: Region) -> NDArray[np.bool_]:
        rule = self._rule
        smooth = self._around(region).astype(np.float32)
        for axis in (0, 1):
            smooth = _running_mean(smooth, rule.radius, axis)
        chroma = smooth.max(axis=2) - smooth.min(axis=2)
        return np.asarray((smooth.mean(axis=2) >= rule.brightness) & (chroma <= rule.chroma))

    def _around(self, region: Region) -> NDArray[np.uint8]:
        """The pixels of `region` and of the rule's radius around it; the image's edge is repeated outwards."""
        image = Region(0, 0, self._source.info.width, self._source.info.height)
        wide = region.grown(self._rule.radius)
        inside = wide.intersection(image)
        pixels = self._source.read(Plane((1.0, 1.0)), inside).values
        widths = ((inside.y - wide.y, wide.y1 - inside.y1), (inside.x - wide.x, wide.x1 - inside.x1), (0, 0))
        return np.pad(pixels, widths, mode="edge")


def _running_mean(values: NDArray[np.float32], radius: int, axis: int) -> NDArray[np.float32]:
    """The mean over 2 * radius + 1 neighbours along an axis, where all of them are there: 2 * radius shorter."""
    reach = 2 * radius + 1
    sums = np.cumsum(values, axis=axis, dtype=np.float64)
    zero = np.zeros_like(np.take(sums, [0], axis=axis))
    sums = np.concatenate([zero, sums], axis=axis)
    count = values.shape[axis] - 2 * radius
    ends = np.take(sums, range(reach, reach + count), axis=axis)
    return ((ends - np.take(sums, range(count), axis=axis)) / reach).astype(np.float32)

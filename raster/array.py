"""A pyramid of numpy arrays as an image: what small decoded pictures are, and what tests make their images of."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from foveate.schema import ImageInfo, LevelInfo
from raster.geometry import Region
from raster.image import Pixels


class ArrayImage:
    """`levels`: (height, width, bands) arrays, finest first; `valid`: (height, width) bool arrays beside them, or None.

    Reads are copies.
    """

    def __init__(
        self, info: ImageInfo, levels: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]] | None = None
    ) -> None:
        for stored, said in zip(levels, info.levels, strict=True):
            assert stored.shape == (said.height, said.width, len(info.bands)), (stored.shape, said)
        self._info, self._levels, self._valid = info, list(levels), None if valid is None else list(valid)

    @classmethod
    def of(
        cls, levels: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]] | None = None, **changes: Any
    ) -> Self:
        """An image of these levels; `changes` are fields of its ImageInfo, such as `kind`, `spacing` or `bands`."""
        height, width, count = levels[0].shape
        shapes = [level.shape[:2] for level in levels]
        fields: dict[str, Any] = {
            "name": "array",
            "kind": "picture",
            "driver": "array",
            "reader": "array",
            "width": width,
            "height": height,
            "levels": [
                LevelInfo(width=w, height=h, downsample=(width / w, height / h), tile=(min(w, 256), min(h, 256)))
                for h, w in shapes
            ],
            "bands": ["red", "green", "blue"] if count == 3 else ["gray", *["undefined"] * (count - 1)],
            "dtype": str(levels[0].dtype),
            "spacing": None,
            "crs": None,
            "transform": None,
            "validity": "none" if valid is None else "mask",
        }
        return cls(ImageInfo(**(fields | changes)), levels, valid)

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        said = self._info.levels[level]
        assert Region(0, 0, said.width, said.height).contains(region), (region, said)
        return Pixels(self._levels[level][region.slices()].copy(), self.read_valid(level, region))

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None if self._valid is None else self._valid[level][region.slices()].copy()

    def close(self) -> None:
        """Nothing is held but memory."""

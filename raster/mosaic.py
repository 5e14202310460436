"""One image out of the files that it was cut into, and the middle of an image as an image."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import OptionInvalid
from foveate.schema import ImageInfo, LevelInfo
from raster.geometry import Region, Size
from raster.image import Pixels, RasterImage

__all__ = ["CroppedImage", "MosaicImage", "crop_in_the_middle"]

_SMALL_PICTURE = 16_000_000
"""Pixels."""


class MosaicImage:
    """Part images in rows of `columns`, without gap or overlap, as one image of one level.

    Parts of one column are equally wide, those of one row equally high; all have the same bands and type. Place and
    spacing are those of the first part. OptionInvalid names the part that does not fit. Owns and closes the parts.
    """

    def __init__(self, parts: Sequence[RasterImage], columns: int) -> None:
        assert len(parts) % columns == 0, (len(parts), columns)
        self._parts, self._columns = list(parts), columns
        infos = [part.info for part in parts]
        self._x = [0, *accumulate(info.width for info in infos[:columns])]
        self._y = [0, *accumulate(info.height for info in infos[::columns])]
        for index, info in enumerate(infos):
            _check_part(info, self._place(index).size, infos[0])
        self._info = _described(infos[0], Size(self._x[-1], self._y[-1]), infos)

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        pieces = [
            (common, self._parts[index].read(0, common.shifted(-place.x, -place.y)))
            for index, place, common in self._under(region)
        ]
        first = pieces[0][1].values
        values = np.empty((*region.size.shape, first.shape[2]), first.dtype)
        valid = None if all(piece.valid is None for _, piece in pieces) else np.ones(region.size.shape, bool)
        for common, piece in pieces:
            here = common.slices(region.x, region.y)
            values[here] = piece.values
            if valid is not None and piece.valid is not None:
                valid[here] = piece.valid
        return Pixels(values, valid)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        if self._info.validity == "none":
            return None
        valid = np.ones(region.size.shape, bool)
        for index, place, common in self._under(region):
            part = self._parts[index].read_valid(0, common.shifted(-place.x, -place.y))
            if part is not None:
                valid[common.slices(region.x, region.y)] = part
        return valid

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _place(self, index: int) -> Region:
        row, column = divmod(index, self._columns)
        return Region.between(self._x[column], self._y[row], self._x[column + 1], self._y[row + 1])

    def _under(self, region: Region) -> list[tuple[int, Region, Region]]:
        """(part, its place, what it shares with `region`) of every part that meets `region`."""
        places = [(index, self._place(index)) for index in range(len(self._parts))]
        met = [(index, place, place.intersection(region)) for index, place in places]
        return [(index, place, common) for index, place, common in met if not common.empty]


class CroppedImage:
    """A region of level 0 of another image, wholly inside it, as an image of one level without a place on Earth.

    Owns and closes the other.
    """

    def __init__(self, image: RasterImage, region: Region) -> None:
        self._image, self._region = image, region
        unplaced: dict[str, Any] = {"crs": None, "transform": None, "gcps": []}
        self._info = _described(image.info, region.size, [image.info]).model_copy(update=unplaced)

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        return self._image.read(0, region.shifted(self._region.x, self._region.y))

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return self._image.read_valid(0, region.shifted(self._region.x, self._region.y))

    def close(self) -> None:
        self._image.close()


def crop_in_the_middle(image: RasterImage, side: int) -> RasterImage:
    """The central square of `side` pixels; of an axis that is shorter, all there is. Odd remainders go right, down."""
    size = Size(min(side, image.info.width), min(side, image.info.height))
    corner = (image.info.width - size.width) // 2, (image.info.height - size.height) // 2
    return CroppedImage(image, Region(*corner, size.width, size.height))


def _check_part(info: ImageInfo, size: Size, first: ImageInfo) -> None:
    if (info.width, info.height) != (size.width, size.height):
        raise OptionInvalid(
            f"{info.name} is {info.width} x {info.height} px, and its row and column of the mosaic are "
            f"{size.height} px high and {size.width} px wide",
            hint="Mend the mosaic's size or the pattern; parts are taken row by row in the order of their names.",
        )
    if (info.bands, info.dtype) != (first.bands, first.dtype):
        raise OptionInvalid(
            f"{info.name} holds {info.dtype} of {', '.join(info.bands)}, and {first.name} of the same mosaic "
            f"{first.dtype} of {', '.join(first.bands)}",
            hint="Choose parts of one kind.",
        )


def _described(first: ImageInfo, size: Size, parts: Sequence[ImageInfo]) -> ImageInfo:
    """The first part's description with the size of the whole.

    Pictures are decoded from their first row on: each small one is a single block, so that it is decoded once.
    """
    rows = first.levels[0].tile[0] >= first.width and first.width * first.height <= _SMALL_PICTURE
    tile = (first.width, first.height) if rows else first.levels[0].tile
    level = LevelInfo(width=size.width, height=size.height, downsample=(1.0, 1.0), tile=tile)
    validity = next((part.validity for part in parts if part.validity != "none"), "none")
    changes = {"width": size.width, "height": size.height, "levels": [level], "validity": validity, "bounds": None}
    return first.model_copy(update=changes)

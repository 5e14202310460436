"""Label files as images: the stored number, or the colour, of every pixel, read in windows.

Readers of pictures would give a palette's colours, stretch 4 bits to 8 and take reduced levels; no label survives it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp

from foveate.errors import ImageError, ImageUnreadable
from foveate.schema import ImageInfo, LevelInfo
from raster.content import Content, content_of, local_path
from raster.geometry import Region
from raster.geotiff import open_quietly, reason
from raster.image import Pixels
from raster.overviews import window_of
from raster.palette import Palette
from raster.picture import png_chunks
from raster.whole_file import whole_file

__all__ = ["LabelFile", "LabelKind", "write_numbers"]

LabelKind = Literal["numbers", "palette", "colours"]
"""What the pixels are: one number, one number with a colour for each, or three bytes of colour."""

_T = TypeVar("_T")
_DRIVERS = {Content.TIFF: "GTiff", Content.PNG: "PNG", Content.PICTURE: "BMP"}
_OPTIONS = {"GTIFF_IGNORE_READ_ERRORS": "NO", "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}


class LabelFile:
    """A label raster (PNG, TIFF, GeoTIFF or BMP) as a RasterImage of one level.

    `read` gives (height, width, 1) numbers as they are stored, uint8 or uint16, where `kind` is "numbers" or
    "palette", and (height, width, 3) uint8 where it is "colours"; alpha is left out, every pixel is valid. `nodata` is
    the declared value or None. Raises ImageUnreadable, naming the file, for other types and numbers of bands.
    """

    def __init__(self, path: Path) -> None:
        self.path = local_path(path)
        content = content_of(self.path)
        if content not in _DRIVERS:
            raise ImageUnreadable(
                f"{path} is no label file: its content is {content.value}",
                hint="Give labels as PNG, TIFF, GeoTIFF, BMP or GeoJSON; JPEG blurs class numbers.",
            )
        if content is Content.PNG:
            png_chunks(self.path)
        self._dataset = self._guarded(lambda: open_quietly(self.path, _DRIVERS[content]), "the file")
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        assert level == 0, level
        raw = self._guarded(lambda: self._dataset.read(self._bands, window=window_of(region)), "a part of it")
        return Pixels(np.ascontiguousarray(np.moveaxis(raw, 0, 2)), None)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None

    def close(self) -> None:
        self._dataset.close()

    def palette_colours(self, numbers: NDArray[Any]) -> NDArray[np.uint8]:
        """(height, width, 3): the palette's colours of (height, width) numbers; for the kind "palette" alone."""
        assert self._palette is not None
        return self._palette.expand(numbers)[0]

    def _describe(self) -> None:
        dataset = self._dataset
        colours = [k + 1 for k, color in enumerate(dataset.colorinterp) if color != ColorInterp.alpha]
        self._bands = colours or [1]
        dtype = str(dataset.dtypes[self._bands[0] - 1])
        self._palette = Palette.of(dataset, self._bands, dtype)
        self.kind: LabelKind = "numbers" if self._palette is None else "palette"
        if len(self._bands) == 3:
            self.kind = "colours"
        types = {1: ("uint8", "uint16"), 3: ("uint8",)}.get(len(self._bands), ())
        if dtype not in types:
            raise ImageUnreadable(
                f"{self.path} is no label raster: it has {len(self._bands)} bands of {dtype}",
                hint="Give one band of 8 or 16 bits of class numbers, or three of 8 bits of colours.",
            )
        packing = dataset.tags(ns="IMAGE_STRUCTURE")
        name = packing.get("COMPRESSION", "")
        if "JPEG" in name or packing.get("COMPRESSION_REVERSIBILITY", "").startswith("LOSSY"):
            raise ImageUnreadable(
                f"{self.path} is packed by {name}, which changes numbers",
                hint="Export the labels with a lossless compression, such as deflate or LZW.",
            )
        self.nodata: int | None = None if dataset.nodata is None else round(dataset.nodata)
        self._info = self._made_info(dtype)

    def _made_info(self, dtype: str) -> ImageInfo:
        dataset = self._dataset
        block_height, block_width = dataset.block_shapes[0]
        size = {"width": dataset.width, "height": dataset.height}
        return ImageInfo(
            name=self.path.name,
            kind="picture",
            driver=dataset.driver,
            reader="rasterio",
            **size,
            levels=[LevelInfo(**size, downsample=(1.0, 1.0), tile=(block_width, block_height))],
            bands=["red", "green", "blue"] if self.kind == "colours" else ["gray"],
            dtype=dtype,
            spacing=None,
            crs=dataset.crs.to_wkt() if dataset.crs else None,
            transform=None if dataset.transform.is_identity else tuple(dataset.transform)[:6],
        )

    def _guarded(self, call: Callable[[], _T], what: str) -> _T:
        try:
            with rasterio.Env(**_OPTIONS):
                return call()
        except ImageError:
            raise
        except Exception as error:
            raise ImageUnreadable(
                f"{self.path}: {what} cannot be decoded: {reason(error, self.path)}",
                hint="The label file is damaged, cut short or of an unusual kind; export or copy it again.",
            ) from error


def write_numbers(path: Path, numbers: NDArray[np.uint8]) -> None:
    """Write (height, width) class numbers as a PNG, whole or not at all. Raises DiskFull."""
    with whole_file(path) as partial:
        Image.fromarray(numbers).save(partial, format="PNG")

"""What an image may claim before a single pixel of it is decoded.

A file of 300 bytes can claim 66,000 x 66,000 pixels in strips of 1.1 GB, or 65,535 bands; one read of either stops a
worker. So the numbers in the header are judged first.
"""

from dataclasses import dataclass
from pathlib import Path

from foveate.errors import ImageLimits, ImageUnreadable, ImageUnsupported

DTYPES = frozenset({"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"})


@dataclass(frozen=True)
class Limits:
    """The largest image that is opened."""

    pixels: int = 200_000_000_000
    """447,000 x 447,000; the largest slides have about 2e10 pixels."""
    bands: int = 16
    block_bytes: int = 256 * 1024**2
    """One stored tile or strip, decoded; reading a single pixel costs a whole one."""
    pixels_per_byte: int = 2**19
    """An empty sparse TIFF in tiles of 2048 px spends 12 bytes of index on 2**22 pixels; more is no honest claim."""
    checked_pixels: int = 2**30
    """Below this size a small file is believed whatever it claims."""

    def check_size(self, path: Path, width: int, height: int, bands: int) -> None:
        """ImageUnreadable for an image without pixels, ImageLimits for one with too many bands or pixels."""
        if bands > self.bands:
            raise ImageLimits(
                f"{path.name} has {bands} bands; at most {self.bands} are read",
                hint="Keep the bands that matter: gdal_translate -b 1 -b 2 -b 3 in.tif out.tif",
            )
        if width < 1 or height < 1 or bands < 1:
            raise ImageUnreadable(
                f"{path.name} has no pixels: it claims {width} x {height} with {bands} bands",
                hint="The file is damaged; export it again.",
            )
        if width * height > self.pixels:
            raise ImageLimits(
                f"{path.name} claims {width} x {height} pixels; at most {self.pixels:.3g} are read",
                hint="Cut the image into parts, for example with gdal_translate -srcwin.",
            )

    def check_claim(self, path: Path, width: int, height: int) -> None:
        """ImageLimits where the file is far too small for the pixels that it claims, sparse or not."""
        size, pixels = path.stat().st_size, width * height
        if pixels > max(self.checked_pixels, size * self.pixels_per_byte):
            raise ImageLimits(
                f"{path.name} claims {width} x {height} pixels in a file of {size} bytes;"
                f" at most {self.pixels_per_byte} pixels a byte are believed",
                hint="The header is wrong, or the image is empty; export it again.",
            )

    def check_block(self, path: Path, width: int, height: int, sample_bytes: int) -> None:
        """ImageLimits where one stored block is too large to decode; `sample_bytes` is that of a whole pixel."""
        size = width * height * sample_bytes
        if size > self.block_bytes:
            raise ImageLimits(
                f"{path.name} is stored in blocks of {width} x {height} px, {size} bytes each;"
                f" at most {self.block_bytes} are decoded at once",
                hint="Store it in small tiles: gdal_translate -co TILED=YES in.tif out.tif",
            )

    def check_dtype(self, path: Path, dtype: str) -> None:
        if dtype not in DTYPES:
            raise ImageUnsupported(
                f"{path.name} has pixels of type {dtype}; read are {', '.join(sorted(DTYPES))}",
                hint="Convert it first, for example complex to amplitude, or gdal_translate -ot Float32 in.tif out.tif",
            )

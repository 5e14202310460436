"""Photographs: their orientation, whether they are whole, and the few formats that only Pillow reads."""

import contextlib
import re
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from foveate.errors import ImageError, ImageUnreadable
from foveate.schema import ImageInfo, LevelInfo
from raster.array import ArrayImage
from raster.content import unsupported
from raster.image import RasterImage
from raster.limits import Limits
from raster.orientation import upright

_XMP_ORIENTATION = re.compile(r"tiff:Orientation(?:=\"|>)([1-8])")
_ORIENTATION = 274
"""EXIF 2.32, 4.6.4; TIFF 6.0, section 8."""
_EXIF_BYTES = 2**20
_FORMATS = ("BMP", "GIF", "WEBP", "JPEG", "PNG")
_DECODED_PIXELS = 2**27
"""Pillow decodes a picture as a whole; at four bytes a pixel this is half a gibibyte."""


def exif_orientation(tags: dict[str, str], exif: bytes | None = None) -> int:
    """EXIF orientation 1 to 8 from GDAL's metadata and a PNG's own EXIF; EXIF wins over XMP, neither is 1."""
    number = tags.get("EXIF_Orientation", "")
    if exif is not None:
        block = Image.Exif()
        with contextlib.suppress(Exception):
            block.load(b"Exif\0\0" + exif)
        number = str(block.get(_ORIENTATION, ""))
    if number in tuple("12345678"):
        return int(number)
    for name, value in tags.items():
        if "xmp" in name.lower() and (match := _XMP_ORIENTATION.search(value)):
            return int(match.group(1))
    return 1


def png_chunks(path: Path) -> dict[str, bytes]:
    """The small ancillary chunks of a PNG that GDAL does not show: EXIF.

    ImageUnreadable unless the chunks run to the end mark: GDAL shows a cut file without a word.
    """
    size, place = path.stat().st_size, 8
    found: dict[str, bytes] = {}
    with path.open("rb") as file:
        while place + 12 <= size:
            file.seek(place)
            length, kind = struct.unpack(">I4s", file.read(8))
            place += 12 + length
            if kind == b"eXIf" and length < _EXIF_BYTES:
                found["eXIf"] = file.read(length)
            if kind == b"IEND" and place <= size:
                return found
    raise ImageUnreadable(
        f"{path.name} is cut short: the PNG of {size} bytes has no end", hint="Copy or upload the file again."
    )


def open_file(path: Path, *, sidecars: bool, limits: Limits) -> RasterImage:
    """A BMP, GIF or WebP (its first frame), decoded as a whole, upright; and JPEGs that GDAL cannot read.

    There are no sidecars. At most 134 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as picture:
                return _decoded(path, picture, limits)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise unsupported(path, "Pillow does not know it") from error
    except Exception as error:
        raise ImageUnreadable(
            f"{path.name} cannot be decoded: {error}", hint="The file is damaged or cut short; copy it again."
        ) from error


def _decoded(path: Path, picture: Image.Image, limits: Limits) -> RasterImage:
    limits.check_size(path, picture.width, picture.height, len(picture.getbands()))
    replace(limits, pixels=min(limits.pixels, _DECODED_PIXELS)).check_size(path, picture.width, picture.height, 1)
    driver = picture.format or "picture"
    orientation = picture.getexif().get(_ORIENTATION, 1)
    seethrough = picture.has_transparency_data
    gray = picture.mode in ("1", "L", "LA")
    pixels = np.asarray(picture.convert("RGBA"))
    values = pixels[..., :1] if gray else pixels[..., :3]
    valid = pixels[..., 3] > 0 if seethrough else None
    info = ImageInfo(
        name=path.name,
        kind="picture",
        driver=driver,
        reader="pillow",
        width=picture.width,
        height=picture.height,
        levels=[LevelInfo(width=picture.width, height=picture.height, downsample=(1.0, 1.0), tile=picture.size)],
        bands=["gray"] if gray else ["red", "green", "blue"],
        dtype="uint8",
        spacing=None,
        crs=None,
        transform=None,
        validity="alpha" if seethrough else "none",
    )
    return upright(ArrayImage(info, [np.ascontiguousarray(values)], None if valid is None else [valid]), orientation)

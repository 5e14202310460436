"""The first page's tags of a TIFF, read without libtiff: enough to judge the file before GDAL or OpenSlide see it."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from foveate.errors import ImageUnreadable
from foveate.schema import SpacingInfo
from raster.spacing import resolution_spacing

# Damaged tags are reported by our own errors; tifffile's log would only repeat them on stderr.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_GEOREFERENCE = (33550, 33922, 34264, 34735, 50844)
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory (GeoTIFF 1.1), RPCCoefficient."""


_MOST_DIRECTORIES = 1000
_CLASSIC_BYTES = 2**32
"""Beyond it only NDPI keeps classic headers, with offsets of its own making."""


@dataclass(frozen=True)
class TiffHeader:
    """What page 0 says of itself."""

    width: int
    height: int
    bands: int
    georeferenced: bool
    orientation: int
    """TIFF 6.0 tag 274; 1 is upright."""
    spacing: SpacingInfo | None
    """From the resolution tags, if believable."""
    ome: bool
    fullest: tuple[tuple[int, int], ...]
    """Centres (x, y) of the stored blocks with the most bytes: where there is something to see."""


def read_tiff_header(path: Path) -> TiffHeader:
    """The header of the TIFF at `path`; ImageUnreadable when it has none that makes sense, or was cut short."""
    _check_directories(path)
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            return _header(file)
    except Exception as error:
        raise ImageUnreadable(
            f"{path.name} starts like a TIFF, but its header cannot be read ({type(error).__name__}: {error})",
            hint="The file is damaged or cut short; export or copy it again.",
        ) from error


def _check_directories(path: Path) -> None:
    """Follow the chain of image file directories (TIFF 6.0, section 2) to its end, which must lie inside the file.

    A slide that was cut short loses its last pages first; what is left of it would pass for another kind of image.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order: Literal["little", "big"] = "little" if head[:1] == b"I" else "big"
        big = int.from_bytes(head[2:4], order) == 43
        if not big and size > _CLASSIC_BYTES:
            return
        count_bytes, entry_bytes, offset_bytes, start = (8, 20, 8, 8) if big else (2, 12, 4, 4)
        offset, seen = int.from_bytes(head[start : start + offset_bytes], order), set[int]()
        while offset and offset not in seen and len(seen) < _MOST_DIRECTORIES:
            seen.add(offset)
            file.seek(min(offset, size))
            count = int.from_bytes(file.read(count_bytes), order)
            end = offset + count_bytes + count * entry_bytes + offset_bytes
            if end > size:
                raise ImageUnreadable(
                    f"{path.name} is cut short: it ends at byte {size}, and has a directory that ends at byte {end}",
                    hint="Copy or export the file again.",
                )
            file.seek(end - offset_bytes)
            offset = int.from_bytes(file.read(offset_bytes), order)


def _header(file: tifffile.TiffFile) -> TiffHeader:
    page = file.pages.first
    tags = page.tags
    return TiffHeader(
        width=int(page.imagewidth),
        height=int(page.imagelength),
        bands=int(page.samplesperpixel),
        georeferenced=any(code in tags for code in _GEOREFERENCE),
        orientation=_number(tags, 274, 1),
        spacing=resolution_spacing(_ratio(tags, 282), _ratio(tags, 283), _number(tags, 296, 2)),
        ome=bool(file.is_ome),
        fullest=_fullest(page),
    )


def _number(tags: tifffile.TiffTags, code: int, default: int) -> int:
    value = tags.valueof(code, default)
    return int(value) if isinstance(value, int) else default


def _ratio(tags: tifffile.TiffTags, code: int) -> float:
    value = tags.valueof(code, (0, 1))
    return value[0] / value[1] if isinstance(value, tuple) and len(value) == 2 and value[1] else 0.0


def _fullest(page: tifffile.TiffPage, count: int = 3) -> tuple[tuple[int, int], ...]:
    sizes = np.asarray(page.databytecounts, np.int64)
    width, height = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    if not sizes.size or width < 1 or height < 1:
        return ()
    across, down = -(-page.imagewidth // width), -(-page.imagelength // height)
    order = np.argsort(sizes, kind="stable")[::-1][:count]
    cells = [divmod(int(index) % (across * down), across) for index in order if sizes[index]]
    return tuple(
        (
            min(column * width + width // 2, page.imagewidth - 1),
            min(row * height + height // 2, page.imagelength - 1),
        )
        for row, column in cells
    )

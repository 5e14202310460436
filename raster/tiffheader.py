"""The first page's tags of a TIFF, read without libtiff: enough to judge the file before GDAL or OpenSlide see it."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from foveate.errors import ImageUnreadable
from foveate.schema import SpacingInfo
from raster.spacing import resolution_spacing

# Damaged tags are reported by our own errors; tifffile's log would only repeat them on stderr.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_GEOREFERENCE = (33550, 33922, 34264, 34735, 50844)
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory (GeoTIFF 1.1), RPCCoefficient."""


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
    """The header of the TIFF at `path`; ImageUnreadable when it has none that makes sense."""
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            return _header(file)
    except Exception as error:
        raise ImageUnreadable(
            f"{path.name} starts like a TIFF, but its header cannot be read: {error}",
            hint="The file is damaged or cut short; export or copy it again.",
        ) from error


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

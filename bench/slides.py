"""A large slide in Aperio's manner, assembled from the tiles of a small one: real H&E, of any size, in seconds.

    python bench/slides.py OUT.svs [MEGAPIXELS]

Level 0 repeats the small slide's own JPEG tiles, byte by byte; levels 1 and 2 are 4 and 16 times coarser.
"""

import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from raster.geometry import Region, Size
from raster.resample import resample
from raster.tiles import TiledPage, tiled_pages

DATA = Path(os.environ.get("FOVEATE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
SMALL = DATA / "slides" / "CMU-1-Small-Region.svs"
_SIZE = Size(2220, 2967)
_STEPS = (4, 16)


def assemble_slide(out: Path, megapixels: float = 200.0, small: Path = SMALL) -> Path:
    """Write a slide of at least so many pixels, and about as wide as high."""
    pages = tiled_pages(small, [_SIZE], 3)
    assert pages is not None, f"{small} is not the slide that this was written for"
    page, data = pages[0], small.read_bytes()
    columns, rows = page.size.width // page.tile.width, page.size.height // page.tile.height
    picture = Size(columns * page.tile.width, rows * page.tile.height)
    across = max(1, round((megapixels * 1e6) ** 0.5 / picture.width))
    down = max(1, math.ceil(megapixels * 1e6 / (across * picture.area)))
    tiles = [[_stored(page, data, column, row) for column in range(columns)] for row in range(rows)]
    decoded = np.concatenate([np.concatenate([page.decode(tile) for tile in row], axis=1) for row in tiles])
    settings: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    settings |= {"tile": page.tile.shape, "compressionargs": {"level": 85, "outcolorspace": "rgb"}}
    full = Size(across * picture.width, down * picture.height)
    with tifffile.TiffWriter(out, bigtiff=True) as writer:
        repeated = (page.jpeg_head + tile[2:] for row in tiles * down for tile in row * across)
        writer.write(repeated, shape=(*full.shape, 3), dtype=np.uint8, description=_description(full), **settings)
        for step in _STEPS:
            coarse = Size(picture.width // step, picture.height // step)
            level = resample(decoded, Region.of(picture), (0, 0, picture.width, picture.height), coarse)
            writer.write(np.tile(level, (down, across, 1)), **settings)
    return out


def _stored(page: TiledPage, data: bytes, column: int, row: int) -> bytes:
    index = row * page.across + column
    return data[page.offsets[index] : page.offsets[index] + page.counts[index]]


def _description(size: Size) -> str:
    frame = f"{size.width}x{size.height} (240x240) JPEG/RGB Q=70"
    return f"Aperio Image Library v11.2.1 \r\n{frame}|AppMag = 20|MPP = 0.4990"


if __name__ == "__main__":
    assemble_slide(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 200.0)

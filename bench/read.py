"""Decoding speed by reader: level 0, tile after tile, one thread. Prints a Markdown table.

usage: python bench/read.py [IMAGE ...]   (default: files of ../shared/data and the demo's scene, where they exist)
"""

import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from foveate.errors import FoveateError
from raster.geometry import Region
from raster.image import ImageRef, RasterImage, open_image

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("FOVEATE_TEST_DATA", ROOT.parent / "shared" / "data"))
FILES = (
    DATA / "slides" / "CMU-1-Small-Region.svs",
    DATA / "slides" / "test3-DAPI-2-387.ndpi",
    DATA / "slides" / "yb10kx5k.zstd.tiff",
    DATA / "slides" / "OS-2-ndpi.ome.tif",
    DATA / "aerial" / "dubai" / "tile_7" / "images" / "image_part_001.jpg",
    ROOT / "demo-data" / "scene.tif",
)
SIDE = 1024
MOST_PIXELS = 50e6
SECONDS = 10.0


def windows(image: RasterImage) -> Iterator[Region]:
    """Windows of about SIDE pixels that begin and end on the file's own blocks, row by row."""
    level = image.info.levels[0]
    whole = Region(0, 0, level.width, level.height)
    width, height = (tile * math.ceil(SIDE / tile) for tile in level.tile)
    for y in range(0, level.height, height):
        for x in range(0, level.width, width):
            yield Region(x, y, width, height).intersection(whole)


def measure(path: Path) -> str:
    """One row: what reads the file, and how fast; stops after MOST_PIXELS or SECONDS."""
    image = open_image(ImageRef(path))
    try:
        info, pixels, started = image.info, 0, time.perf_counter()
        for window in windows(image):
            image.read(0, window)
            pixels += window.size.area
            if pixels > MOST_PIXELS or time.perf_counter() - started > SECONDS:
                break
        seconds = time.perf_counter() - started
    finally:
        image.close()
    size = f"{info.width} x {info.height} x {len(info.bands)} {info.dtype}"
    tile = "{} x {}".format(*info.levels[0].tile)
    return f"| {path.name} | {info.driver} | {info.reader} | {size} | {tile} | {pixels / seconds / 1e6:.1f} |"


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one thread\n")
    print("| file | format | reader | size | tile | Mpx/s |\n|---|---|---|---|---|---:|")
    for path in [Path(name) for name in sys.argv[1:]] or [path for path in FILES if path.exists()]:
        try:
            print(measure(path), flush=True)
        except FoveateError as error:
            print(f"{path}: {error.message}", file=sys.stderr)


if __name__ == "__main__":
    main()

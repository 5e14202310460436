"""Decoding speed by format and by path (direct, OpenSlide, GDAL, ...): level 0, chunk after chunk, one thread.

    make bench NAME=read [JSON=FILE]        or        python -m bench.read [--json FILE] [--repeats N] [IMAGE ...]

The paths of one file take turns, window by window, so that whatever else the machine does falls on all of them; rates
are pixels per second of this process's own CPU time. Windows are those that the chunked source asks for: whole tiles.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from bench.report import Records, markdown, middle, spread
from bench.runner import repeats, run
from bench.slides import DATA, assemble_slide
from foveate.errors import FoveateError
from raster.geometry import Region
from raster.image import ImageRef, RasterImage, open_image

FILES = (
    DATA / "slides" / "test3-DAPI-2-387.ndpi",
    DATA / "slides" / "OS-2-ndpi.ome.tif",
    DATA / "slides" / "dicom-bpaec",
    DATA / "aerial" / "dubai" / "tile_7" / "images" / "image_part_001.jpg",
)
LEAST_TILE = 200
MOST_PIXELS = 12_000_000
"""A path and repeat."""
GEOTIFFS = {
    "deflate": {"compress": "deflate", "predictor": 2},
    "lzw": {"compress": "lzw", "predictor": 2},
    "zstd": {"compress": "zstd", "predictor": 2},
    "jpeg-rgb": {"compress": "jpeg", "photometric": "rgb", "jpeg_quality": 85},
    "jpeg-ycbcr": {"compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 85},
}


def windows(image: RasterImage) -> Iterator[Region]:
    """The source's chunks of level 0, row by row, spread over the whole image if it is larger than is read."""
    level = image.info.levels[0]
    width, height = (tile * math.ceil(LEAST_TILE / tile) for tile in level.tile)
    whole = Region(0, 0, level.width, level.height)
    places = [(x, y) for y in range(0, level.height, height) for x in range(0, level.width, width)]
    for x, y in places[:: max(1, level.width * level.height // MOST_PIXELS)]:
        yield Region(x, y, width, height).intersection(whole)


def paths(file: Path) -> list[str]:
    """The reader that is chosen, and the reference if that is another."""
    with closing(open_image(ImageRef(file))) as image:
        if image.info.reader != "direct":
            return [image.info.reader]
        return ["direct", "openslide" if image.info.driver == "aperio" else "rasterio"]


def once(file: Path, names: list[str]) -> dict[str, tuple[float, float]]:
    """Mpx a second of CPU time and of wall time by path, the paths taking turns; opened anew, so no cache helps."""
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(open_image(ImageRef(file, reader=name)))) for name in names]
        return _timed(dict(zip(names, opened, strict=True)))


def _timed(images: dict[str, RasterImage]) -> dict[str, tuple[float, float]]:
    spent = {name: np.zeros(2) for name in images}
    pixels = 0
    for window in windows(next(iter(images.values()))):
        pixels += window.size.area
        for name, image in images.items():
            before = np.array([time.process_time(), time.perf_counter()])
            image.read(0, window)
            spent[name] += np.array([time.process_time(), time.perf_counter()]) - before
    return {name: (pixels / cpu / 1e6, pixels / wall / 1e6) for name, (cpu, wall) in spent.items()}


def measure(file: Path, repeats: int) -> list[dict[str, Any]]:
    """One record a path of one file."""
    names = paths(file)
    with closing(open_image(ImageRef(file))) as image:
        info = image.info
    runs = [once(file, names) for _ in range(repeats)]
    return [
        {
            "file": file.name,
            "format": info.driver,
            "pixels": f"{info.width} x {info.height} x {len(info.bands)} {info.dtype}",
            "tile": "{} x {}".format(*info.levels[0].tile),
            "path": name,
            "mpx_per_cpu_second": [run[name][0] for run in runs],
            "mpx_per_second": [run[name][1] for run in runs],
            "times_reference": middle([run[name][0] / run[names[-1]][0] for run in runs]),
        }
        for name in names
    ]


def geotiffs(folder: Path) -> Iterator[Path]:
    """The same H&E picture in tiles of 512 px under each codec."""
    pixels = _picture()
    for name, options in GEOTIFFS.items():
        path = folder / f"{name}.tif"
        profile = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "dtype": "uint8", **options}
        transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
        height, width, count = pixels.shape
        with rasterio.open(path, "w", width=width, height=height, count=count, transform=transform, **profile) as file:
            file.write(np.moveaxis(pixels, 2, 0))
        yield path


def _picture() -> NDArray[Any]:
    with closing(open_image(ImageRef(DATA / "slides" / "CMU-1-Small-Region.svs"))) as image:
        piece = image.read(0, Region(0, 0, 2048, 2560)).values
    return np.tile(piece, (1, 2, 1))


def table(records: list[dict[str, Any]]) -> str:
    columns = ("file", "format", "size", "tile", "path", "Mpx per CPU second", "spread", "times the reference")
    return markdown(
        columns,
        [
            (
                record["file"],
                record["format"],
                record["pixels"],
                record["tile"],
                record["path"],
                middle(record["mpx_per_cpu_second"]),
                spread(record["mpx_per_cpu_second"]),
                record["times_reference"],
            )
            for record in records
        ],
    )


def measure_all(asked: argparse.Namespace) -> Records:
    records: Records = []
    with tempfile.TemporaryDirectory() as folder:
        files = asked.images
        if not files:
            slide = assemble_slide(Path(folder) / "assembled.svs", 64)
            files = [slide, *geotiffs(Path(folder)), *(path for path in FILES if path.exists())]
        for file in files:
            try:
                records += measure(file, asked.repeats)
            except FoveateError as error:
                print(f"{file}: {error.message}", file=sys.stderr)
    return records


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", type=Path)
    repeats(parser, 5)


if __name__ == "__main__":
    run("read", __doc__, measure_all, table, _arguments)

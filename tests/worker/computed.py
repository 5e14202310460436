"""Masks computed without the files around them: the pipeline up to its committed labels."""

from pathlib import Path

import numpy as np
import rasterio
import tifffile

from foveate.schema import SegmentOptions
from model.bundle import load_bundle
from model.device import choose_device
from model.predictor import Predictor
from worker.assemble import layers_of, without
from worker.canvas import Canvas
from worker.job import prepared
from worker.pipeline import block_work, configuration, planned
from worker.spec import JobSpec


def write_image(path: Path, pixels, **profile) -> Path:
    """A tiled GeoTIFF of `pixels` (height, width) or (height, width, bands)."""
    bands = np.atleast_3d(pixels)
    height, width, count = bands.shape
    colours = {"photometric": "RGB"} if count == 3 else {}
    settings = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64}
    settings |= {"transform": rasterio.Affine(2, 0, 1000, 0, -2, 9000), **colours, **profile}
    with rasterio.open(path, "w", width=width, height=height, count=count, dtype=bands.dtype, **settings) as file:
        file.write(np.moveaxis(bands, 2, 0))
    return path


def broken_tiles(path, pixels, tiles, **profile):
    """Deflate-compressed, with the first bytes of some tiles overwritten."""
    write_image(path, pixels, compress="deflate", **profile)
    break_tiles(path, tiles, np.shape(pixels)[1])
    return path


def break_tiles(path, tiles, width):
    """Overwrite the first bytes of some tiles of the level that is so wide."""
    with tifffile.TiffFile(path) as file:
        page = next(page for page in file.pages if page.imagewidth == width)
        offsets = [page.dataoffsets[tile] for tile in tiles]
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(b"\xff" * 64)


def spec_for(image: Path, bundle: Path, work: Path, *, block=None, batch=None, memory_gb=2.0, **options) -> JobSpec:
    """A job on a local file with its canvas and its output under `work`."""
    canvas = work / "canvas"
    canvas.mkdir(parents=True, exist_ok=True)
    return JobSpec(
        job_id="test",
        image=image,
        image_name=image.name,
        image_sha256="0" * 64,
        reader="rasterio",
        sidecars=True,
        options=SegmentOptions(**options),
        model=bundle,
        out=work / "out",
        canvas=canvas,
        device="cpu",
        memory_gb=memory_gb,
        batch=batch,
        block=block,
    )


def mask_of(spec: JobSpec, stop_after: int | None = None):
    """The mask's labels, uint8 (rows, columns); `stop_after`: raise KeyboardInterrupt after so many batches."""
    return layers_made(spec, stop_after)["labels"]


def layers_made(spec: JobSpec, stop_after: int | None = None):
    """As `mask_of`: of all layers by name, (..., rows, columns)."""
    predictor = Predictor(load_bundle(spec.model), choose_device("cpu"))
    with prepared(spec, predictor, lambda stage, share: None) as job:
        canvas = Canvas(spec.canvas, configuration(job, predictor))
        plan, first = planned(job, canvas, predictor, lambda stage, share: None)
        calls = iter(range(10**9))

        def report(share):
            if share and stop_after is not None and next(calls) >= stop_after:
                raise KeyboardInterrupt

        block_work(job, plan, canvas, predictor, first.damaged).run(report, lambda row, damaged: None)
        made = {}
        damaged = set(first.damaged | job.known_damage)
        for block in job.placement.blocks:
            damaged |= canvas.block(block).damaged
        for piece in job.placement.pieces():
            layers = layers_of(job.placement, canvas, piece)
            for name, layer in without(layers, piece, job.placement, damaged).items():
                shape = *layer.shape[:-2], *job.placement.mask_size.shape
                made.setdefault(name, np.full(shape, 99, layer.dtype))[(..., *piece.region_m.slices())] = layer
    return made

"""The images that benches run on, made once and kept: the demo's scene, a slide of real H&E, and a sparse scene."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from bench.environments import HOME
from bench.slides import assemble_slide
from examples.demo_scene import make_scene

FULL_SIDE = 8192
FULL_SLIDE = 200.0
"""Megapixels of the slide beside a scene of FULL_SIDE."""
_TEXTURE = 1024


def folder() -> Path:
    path = HOME / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def scene(side: int = FULL_SIDE) -> Path:
    """The demo's scene, its top left part, or it again and again: a tiled GeoTIFF with overviews, JPEG."""
    whole = folder() / f"scene-{FULL_SIDE}.tif"
    if not whole.exists():
        make_scene(whole)
    if side == FULL_SIDE:
        return whole
    return _part(whole, side, "cog", driver="COG", compress="jpeg", overview_resampling="average")


def flat_scene(side: int = FULL_SIDE) -> Path:
    """The same pixels without overviews, lossless: a tiled TIFF that every peer can read, and reads alike."""
    layout = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512}
    return _part(scene(), side, "flat", compress="deflate", predictor=2, **layout)


def slide(side: int = FULL_SIDE) -> Path:
    """A pyramid of JPEG tiles assembled from real H&E: FULL_SLIDE megapixels at FULL_SIDE, else less in proportion."""
    megapixels = FULL_SLIDE * (side / FULL_SIDE) ** 2
    path = folder() / f"slide-{side}.svs"
    if not path.exists():
        assemble_slide(path.with_suffix(".part.svs"), megapixels).rename(path)
    return path


def sparse_scene(megapixels: int) -> Path:
    """A square scene with a picture in one corner of every 4096 pixels; the rest is data too, but no file block."""
    side = round(megapixels**0.5 * 1000 / 256) * 256
    path = folder() / f"sparse-{megapixels}.tif"
    if path.exists():
        return path
    layout = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    texture = np.random.default_rng(0).integers(0, 256, (3, _TEXTURE // 8, _TEXTURE // 8), np.uint8)
    texture = texture.repeat(8, axis=1).repeat(8, axis=2)
    part = path.with_suffix(".part.tif")
    with rasterio.open(
        part, "w", width=side, height=side, count=3, dtype="uint8", sparse_ok=True, bigtiff="yes",
        crs="EPSG:32640", transform=rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 2_700_000), **layout,
    ) as file:  # fmt: skip
        for y in range(0, side - _TEXTURE, 4 * _TEXTURE):
            for x in range(0, side - _TEXTURE, 4 * _TEXTURE):
                file.write(texture, window=Window(x, y, _TEXTURE, _TEXTURE))
    return part.rename(path)


def _part(whole: Path, side: int, kind: str, **layout: object) -> Path:
    path = folder() / f"scene-{side}-{kind}.tif"
    if not path.exists():
        scratch, part = path.with_suffix(".raw.tif"), path.with_suffix(".part.tif")
        with rasterio.open(whole) as file:
            pixels, profile = file.read(), file.profile
        again = -(-side // FULL_SIDE)
        pixels = np.tile(pixels, (1, again, again))[:, :side, :side]
        profile = {"driver": "GTiff", "crs": profile["crs"], "transform": profile["transform"], "dtype": "uint8"}
        with rasterio.open(scratch, "w", width=side, height=side, count=3, photometric="RGB", **profile) as file:
            file.write(pixels)
        rasterio.shutil.copy(scratch, part, **layout)
        scratch.unlink()
        part.rename(path)
    return path

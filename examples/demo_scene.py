"""Make the demo's scene: 8192 x 8192 pixels, a tiled pyramidal GeoTIFF, from the two mosaics beside this file.

usage: python examples/demo_scene.py OUT.tif

Mosaic 4 stands on the left, mosaic 7 on the right, and both are mirrored downwards until the scene is full. The mosaics
carry no position, so one is invented: UTM zone 40 north, with pixels of half a metre.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from PIL import Image
from rasterio import Affine
from rasterio.windows import Window

HERE = Path(__file__).parent
MOSAICS = ("dubai-mosaic-4.jpg", "dubai-mosaic-7.jpg")
SIDE = 8192
BAND = 512
POSITION = {"crs": "EPSG:32640", "transform": Affine(0.5, 0, 400_000, 0, -0.5, 2_700_000)}
NOTE = (
    "Foveate's demo scene: two mosaics of Dubai (4 and 7) side by side, mirrored downwards to fill the square. "
    "The position (UTM 40N) and the pixel size (0.5 m) are invented. "
    "The bundle landcover has learned from both mosaics; do not judge it by this scene."
)
CREDIT = (
    "Mohammed Bin Rashid Space Centre (MBRSC), published by Humans in the Loop as 'Semantic segmentation of aerial "
    "imagery'; licence reported as CC0"
)

__all__ = ["CREDIT", "NOTE", "make_scene"]


def mirrored(y0: int, y1: int, height: int) -> NDArray[np.int64]:
    """Which of a picture's `height` rows stand at the rows [y0, y1) of its endless mirroring downwards."""
    rows = np.arange(y0, y1) % (2 * height)
    return np.where(rows < height, rows, 2 * height - 1 - rows)


def make_scene(path: Path) -> Path:
    """Write the scene to `path`, band by band: what lies in memory is the mosaics and one band."""
    mosaics = [np.asarray(Image.open(HERE / name)) for name in MOSAICS]
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, rasterio.Env(GDAL_CACHEMAX=64):
        flat = Path(scratch) / "flat.tif"
        profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8", "photometric": "RGB"}
        with rasterio.open(flat, "w", tiled=True, blockxsize=BAND, blockysize=BAND, **profile, **POSITION) as scene:
            scene.update_tags(TIFFTAG_IMAGEDESCRIPTION=NOTE, TIFFTAG_COPYRIGHT=CREDIT)
            for y in range(0, SIDE, BAND):
                band = np.hstack([mosaic[mirrored(y, y + BAND, len(mosaic))] for mosaic in mosaics])
                scene.write(band[:, :SIDE].transpose(2, 0, 1), window=Window(0, y, SIDE, BAND))
        pyramid = {"driver": "COG", "compress": "JPEG", "quality": 85, "blocksize": BAND, "num_threads": 2}
        whole = Path(scratch) / path.name
        rasterio.shutil.copy(flat, whole, overview_resampling="average", **pyramid)
        whole.rename(path)
    return path


if __name__ == "__main__":
    print(make_scene(Path(sys.argv[1])), NOTE, CREDIT, sep="\n")

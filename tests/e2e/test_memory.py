"""Peak memory of `foveate segment`, torch and child processes included, on images far larger than it."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window

from tests.bundles import make_bundle

LIMIT = 2_000_000_000


def peak_pss(command: list[str], log: Path) -> int:
    """Largest sum of the proportional set sizes over the process tree, in bytes; the command must succeed."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    root, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        total = 0
        with suppress(psutil.Error):
            for member in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    total += member.memory_full_info().pss
        peak = max(peak, total)
        time.sleep(0.1)
    assert process.returncode == 0, log.read_text()
    return peak


def mostly_empty(path: Path, tiled: bool) -> Path:
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512} if tiled else {"tiled": False}
    profile = {"compress": "deflate", "nodata": 0, "sparse_ok": True, "bigtiff": "yes", "crs": "EPSG:32633", **blocks}
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=40000, height=40000, count=3, dtype="uint8", transform=transform, **profile
    ) as file:
        file.write(
            np.random.default_rng(0).integers(1, 255, (3, 1500, 1500), np.uint8),
            window=Window(17000, 23000, 1500, 1500),
        )
    return path


def jpeg_slide(path: Path, side: int) -> Path:
    """A pyramid of JPEG tiles with micrometres, as whole-slide scanners write."""
    tile = np.random.default_rng(1).integers(90, 250, (3, 64, 64), np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    settings = {"compress": "jpeg", "photometric": "ycbcr", "tiled": True, "blockxsize": 256, "blockysize": 256}
    transform = rasterio.Affine(1, 0, 0, 0, 1, 0)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", transform=transform, **settings
    ) as file:
        file.update_tags(TIFFTAG_XRESOLUTION=20000, TIFFTAG_YRESOLUTION=20000, TIFFTAG_RESOLUTIONUNIT=3)
        for y in range(0, side, 1024):
            for x in range(0, side, 1024):
                file.write(tile, window=Window(x, y, 1024, 1024))
    with rasterio.Env(COMPRESS_OVERVIEW="JPEG"), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8, 16, 32], Resampling.average)
    return path


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", ["tiled", "strips", "slide"])
def test_memory_stays_below_2_gb_whatever_the_image(tmp_path: Path, kind: str) -> None:
    bundle = make_bundle(
        tmp_path / "bundle", kind="any", patch_size=256, fovs=[256, 512, 1024], mapping="explicit", policy="mode",
        spacing=None,
    )  # fmt: skip
    if kind == "slide":
        image = jpeg_slide(tmp_path / "slide.tif", 14336)
    else:
        image = mostly_empty(tmp_path / "empty.tif", kind == "tiled")
    command = [str(Path(sys.executable).with_name("foveate")), "segment", str(image), "--out", str(tmp_path / "out")]
    assert peak_pss([*command, "--model", str(bundle)], tmp_path / "log") < LIMIT

"""Files that claim too much are refused by their header, quickly, with numbers and a remedy."""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine

from foveate.errors import ImageLimits, ImageUnreadable
from raster.image import ImageRef, open_image
from raster.limits import Limits
from tests.shared import DATA

BROKEN = DATA / "broken"


def sparse(path: Path, side: int, tile: int, **profile: Any) -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=1,
        dtype="uint8",
        tiled=True,
        blockxsize=tile,
        blockysize=tile,
        transform=Affine(1, 0, 5, 0, -1, 5),
        SPARSE_OK=True,
        **profile,
    ):
        return path


def test_band_count_is_judged_before_anything_else() -> None:
    started = time.process_time()
    with pytest.raises(ImageLimits, match="65535 bands"):
        open_image(ImageRef(BROKEN / "libtiff_segfault.tif"))
    assert time.process_time() - started < 5


def test_huge_sparse_is_refused_with_its_numbers() -> None:
    with pytest.raises(ImageLimits, match="66000 x 66000 pixels in a file of 306 bytes") as caught:
        open_image(ImageRef(BROKEN / "huge-sparse.tiff"))
    assert caught.value.hint


def test_huge_strips_are_refused_by_their_bytes() -> None:
    believed = Limits(checked_pixels=10**12)
    with pytest.raises(ImageLimits, match="blocks of 66000 x 4096 px, 1081344000 bytes"):
        open_image(ImageRef(BROKEN / "huge-sparse.tiff"), believed)


def test_thirty_kilobytes_are_not_forty_gigapixels(tmp_path: Path) -> None:
    path = sparse(tmp_path / "claims.tif", 200_000, 4096)
    assert path.stat().st_size < 60_000
    with pytest.raises(ImageLimits, match="200000 x 200000 pixels in a file of"):
        open_image(ImageRef(path))


def test_honest_sparse_files_are_read(tmp_path: Path) -> None:
    for side, tile in ((40_000, 512), (60_000, 2048)):
        path = sparse(tmp_path / f"{side}.tif", side, tile, BIGTIFF="YES")
        with closing(open_image(ImageRef(path))) as image:
            assert image.info.width == side


def test_pixels_have_a_limit(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((100, 101), np.uint8))
    with pytest.raises(ImageLimits, match="101 x 100"):
        open_image(ImageRef(tmp_path / "a.tif"), Limits(pixels=10_000))


def test_no_pixels_at_all_is_damage() -> None:
    with pytest.raises(ImageUnreadable, match=r"zero_gi\.tif has no pixels"):
        open_image(ImageRef(BROKEN / "zero_gi.tif"))

"""The demo's scene is what its description says: large, pyramidal, placed, mirrored."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from demo_scene import MOSAICS, NOTE, make_scene, mirrored  # noqa: E402


def test_mirrored_rows_go_down_and_up_again() -> None:
    assert mirrored(0, 9, 3).tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 2]
    assert mirrored(4, 6, 3).tolist() == [1, 0]


def test_mosaics_are_small_files() -> None:
    assert sum((EXAMPLES / name).stat().st_size for name in MOSAICS) < 12e6


@pytest.mark.slow
def test_scene(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "scene.tif")
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]
    valid, faults, warnings = cog_validate(path, strict=True, quiet=True)
    assert (valid, faults, warnings) == (True, [], [])
    with rasterio.open(path) as scene:
        assert (scene.width, scene.height, scene.crs.to_epsg()) == (8192, 8192, 32640)
        assert scene.overviews(1) == [2, 4, 8, 16]
        assert scene.tags()["TIFFTAG_IMAGEDESCRIPTION"] == NOTE
        # Mosaic 4 is 2538 rows high: its last 64 rows come again in the opposite order. JPEG changes them a little.
        before = scene.read(window=Window(0, 2538 - 64, 3297, 64)).astype(int)
        after = scene.read(window=Window(0, 2538, 3297, 64)).astype(int)
        assert np.abs(before - after[:, ::-1]).mean() < 6
        assert np.abs(before - after).mean() > 12

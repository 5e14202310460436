"""What is read back of a copy: every tile that holds something, and no other."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from raster.cog import cog_copy, writing
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.overviews import TILE, corner_halved
from raster.scratch import ScratchRaster

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@settings(max_examples=12, deadline=None)
@given(
    nodata=st.sampled_from([255, np.nan]),
    width=st.integers(1, 3 * TILE + 5),
    spots=st.lists(st.tuples(st.integers(0, 1299), st.floats(0, 0.999)), max_size=4),
    heights=st.lists(st.integers(1, 700), min_size=1, max_size=5),
    whole=st.booleans(),
)
def test_tiles_without_anything_are_not_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    nodata: float,
    width: int,
    spots: list[tuple[int, float]],
    heights: list[int],
    whole: bool,
) -> None:
    directory, size = tmp_path_factory.mktemp("scratch"), Size(width, 1300)
    dtype = np.uint8 if nodata == 255 else np.float32
    values = np.full(size.shape, nodata, dtype)
    for y, x in spots:
        values[y, int(x * width)] = 1
    raster = ScratchRaster(directory, "some", size, np.dtype(dtype).name, nodata, Georeference(), lambda _: None)
    for region in _pieces(size, heights, whole):
        raster.write(region, values[region.slices()])
    seen: list[NDArray[np.float32]] = []
    with (
        writing(directory / "copy.tif"),
        cog_copy(raster.seal(corner_halved), directory / "copy.tif", bigtiff=False) as copy,
    ):
        found = raster.total(copy, lambda tile: seen.append(tile) or int((tile == 1).sum()))
    raster.close()
    assert found == (values == 1).sum()
    assert len(seen) == len({(y // TILE, int(x * width) // TILE) for y, x in spots})


def _pieces(size: Size, heights: list[int], whole: bool) -> list[Region]:
    """Bands of rows from top to bottom, whole or in two."""
    pieces, y, index = [], 0, 0
    middle = size.width if whole else size.width // 2
    while y < size.height:
        height = min(heights[index % len(heights)], size.height - y)
        for left, right in ((0, middle), (middle, size.width)):
            if right > left:
                pieces.append(Region(left, y, right - left, height))
        y, index = y + height, index + 1
    return pieces


def test_nothing_at_all_comes_to_nothing(tmp_path: Path) -> None:
    raster = ScratchRaster(tmp_path, "none", Size(600, 600), "uint8", 255, Georeference(), lambda _: None)
    with (
        writing(tmp_path / "copy.tif"),
        cog_copy(raster.seal(corner_halved), tmp_path / "copy.tif", bigtiff=False) as copy,
    ):
        assert raster.total(copy, np.size) == 0
    raster.close()

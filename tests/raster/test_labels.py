"""Label files: the stored numbers in windows, whatever a viewer would show."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.errors import ImageMissing, ImageUnreadable
from raster.geometry import Region
from raster.labels import LabelFile, write_numbers
from tests.shared import DATA

NUMBERS = np.random.default_rng(0).integers(0, 256, (37, 53), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_windows_hold_the_stored_numbers(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(NUMBERS).save(tmp_path / f"label.{suffix}")
    with closing(LabelFile(tmp_path / f"label.{suffix}")) as file:
        assert (file.info.width, file.info.height, file.info.dtype) == (53, 37, "uint8")
        assert np.array_equal(file.read(0, Region(5, 20, 40, 9)).values[..., 0], NUMBERS[20:29, 5:45])
        assert np.array_equal(file.read(0, Region(0, 0, 53, 37)).values[..., 0], NUMBERS)


def test_the_palette_of_a_real_mask_is_kept_aside() -> None:
    path = DATA / "aerial/dubai/tile_2/masks/image_part_001.png"
    with closing(LabelFile(path)) as file:
        assert file.kind == "palette" and file.info.bands == ["gray"]
        numbers = file.read(0, Region(0, 0, file.info.width, file.info.height)).values[..., 0]
        colours = file.palette_colours(numbers)
    assert set(np.unique(numbers)) <= set(range(6))
    assert np.array_equal(colours, np.asarray(Image.open(path).convert("RGB")))


def test_a_tiled_raster_is_read_by_its_tiles() -> None:
    with closing(LabelFile(DATA / "geotiff/cog_cmap.tif")) as file:
        assert (file.kind, file.nodata, file.info.levels[0].tile) == ("palette", 0, (512, 512))
        assert len(file.info.levels) == 1  # its overviews may be blends of numbers
        assert file.read(0, Region(3000, 4000, 64, 32)).values.shape == (32, 64, 1)


def test_alpha_of_a_colour_mask_is_left_out(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (8, 9, 4), np.uint8)
    Image.fromarray(colours).save(tmp_path / "mask.png")
    with closing(LabelFile(tmp_path / "mask.png")) as file:
        assert file.kind == "colours"
        assert np.array_equal(file.read(0, Region(0, 0, 9, 8)).values, colours[..., :3])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("broken/truncated_image.png", ImageUnreadable),
        ("photos/progressive_orient3.jpg", ImageUnreadable),
        ("photos/test_RGB_16.png", ImageUnreadable),
        ("geotiff/float_nan.tif", ImageUnreadable),
        ("slides/small.none", ImageMissing),
    ],
)
def test_what_cannot_be_labels_is_named(name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=Path(name).stem):
        LabelFile(DATA / name)


def test_a_damaged_tile_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "label.tif"
    Image.fromarray(NUMBERS).save(path, compression="tiff_lzw")
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + bytes(600) + whole[608:])
    with pytest.raises(ImageUnreadable, match=r"label\.tif"), closing(LabelFile(path)) as file:
        file.read(0, Region(0, 0, 53, 37))


def test_numbers_are_written_whole(tmp_path: Path) -> None:
    write_numbers(tmp_path / "out.png", NUMBERS)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), NUMBERS)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]

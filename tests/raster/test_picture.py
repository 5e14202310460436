"""Photographs: upright whatever their orientation tag, whole or refused, 16 bits kept."""

import struct
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from foveate.errors import ImageLimits, ImageUnreadable
from raster.geometry import Region
from raster.image import ImageRef, RasterImage, open_image
from raster.limits import Limits
from tests.raster.contract import ReaderContract, whole
from tests.shared import DATA

PHOTOS = DATA / "photos"


class TestRotatedJpeg(ReaderContract):
    reader, path = "rasterio", PHOTOS / "Landscape_6.jpg"

    def test_is_upright(self, image: RasterImage) -> None:
        assert (image.info.width, image.info.height, image.info.frame) == (1800, 1200, "exif-oriented")
        assert image.info.levels[0].tile == (1, 1200)


class TestPngWithAlpha(ReaderContract):
    reader, path = "rasterio", PHOTOS / "rgba.png"


class TestOrientedTiffPyramid(ReaderContract):
    reader, path = "rasterio", DATA / "slides/test_orient6.tif"

    def test_orientation_tag_turns_all_levels(self, image: RasterImage) -> None:
        assert [(one.width, one.height) for one in image.info.levels] == [(180, 120), (90, 60), (45, 30)]


class TestJpeg2000(ReaderContract):
    reader, path = "rasterio", DATA / "geotiff/world.jp2"


class TestWebp(ReaderContract):
    reader = "pillow"

    @pytest.fixture(autouse=True)
    def _written(self, tmp_path: Path) -> None:
        self.path = tmp_path / "a.webp"
        with Image.open(PHOTOS / "rgba.png") as picture:
            picture.save(self.path, lossless=True)


@pytest.mark.parametrize("name", ["Landscape_5.jpg", "Landscape_6.jpg", "Portrait_8.jpg", "progressive_orient3.jpg"])
def test_real_photographs_stand_as_pillow_turns_them(name: str) -> None:
    with Image.open(PHOTOS / name) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture)).astype(int)
    with closing(open_image(ImageRef(PHOTOS / name))) as image:
        values = whole(image).values.astype(int)
    assert values.shape == expected.shape
    assert np.abs(values - expected).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("end", ["jpg", "png", "webp", "tif"])
def test_all_eight_orientations_in_every_container(tmp_path: Path, orientation: int, end: str) -> None:
    ramp = np.zeros((40, 24, 3), np.uint8)
    ramp[:20, :12] = (250, 0, 0)
    ramp[20:, 12:] = (0, 0, 250)
    ramp[:10, 12:] = (0, 250, 0)
    path = tmp_path / f"a.{end}"
    exif = Image.Exif()
    exif[274] = orientation
    options: dict[str, dict[str, Any]] = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}
    if end == "tif":
        tifffile.imwrite(path, ramp, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
        stored = Image.fromarray(ramp)
        stored.info["exif"] = exif.tobytes()
        expected = np.asarray(ImageOps.exif_transpose(stored))
    else:
        Image.fromarray(ramp).save(path, exif=exif.tobytes(), **options.get(end, {}))
        with Image.open(path) as picture:
            expected = np.asarray(ImageOps.exif_transpose(picture))
    with closing(open_image(ImageRef(path))) as image:
        values = whole(image).values
        assert image.info.frame == ("level-0" if orientation == 1 else "exif-oriented")
    assert values.shape == expected.shape
    assert np.abs(values.astype(int) - expected.astype(int)).max() < 12


def test_xmp_orientation_of_a_png_counts() -> None:
    path = PHOTOS / "xmp_tags_orientation.png"
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    with closing(open_image(ImageRef(path))) as image:
        np.testing.assert_array_equal(whole(image).values, expected[..., :3])


def test_scene_with_an_orientation_tag_is_never_turned(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    tags = [(274, 3, 1, 6, True), (33550, 12, 3, (1.0, 1.0, 0.0), True), (33922, 12, 6, (0, 0, 0, 5e5, 4e6, 0), True)]
    tifffile.imwrite(path, np.zeros((40, 24), np.uint8), photometric="minisblack", extratags=tags)
    with closing(open_image(ImageRef(path))) as image:
        assert (image.info.width, image.info.height, image.info.kind) == (24, 40, "scene")


@pytest.mark.parametrize("name", ["test_L_16.png", "test_RGB_16.png", "tiff_16bit_RGB.tiff"])
def test_sixteen_bits_stay_sixteen(name: str) -> None:
    with closing(open_image(ImageRef(PHOTOS / name))) as image:
        assert image.info.dtype == "uint16"
        assert whole(image).values.max() > 255


def test_cmyk_is_shown_as_colours() -> None:
    with closing(open_image(ImageRef(PHOTOS / "cmyk.jpg"))) as image:
        assert image.info.bands == ["red", "green", "blue"]


def test_indexed_png_is_shown_as_colours() -> None:
    with Image.open(PHOTOS / "indexed.png") as picture:
        expected = np.asarray(picture.convert("RGB"))
    with closing(open_image(ImageRef(PHOTOS / "indexed.png"))) as image:
        np.testing.assert_array_equal(whole(image).values, expected)


@pytest.mark.parametrize("name", ["truncated.jpg", "truncated_image.png"])
def test_cut_files_are_refused_when_opened(name: str) -> None:
    with pytest.raises(ImageUnreadable, match=rf"{name.partition('.')[0]}.*(cut short|[Pp]remature end)"):
        open_image(ImageRef(DATA / "broken" / name))


def test_bands_of_a_tall_png_are_read_in_order(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (900, 64, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    with closing(open_image(ImageRef(tmp_path / "a.png"))) as image:
        bands = [image.read(0, Region(0, y, 64, 100)).values for y in range(0, 900, 100)]
    np.testing.assert_array_equal(np.concatenate(bands), values)


def test_png_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ImageLimits, match="100000 x 100000"):
        open_image(ImageRef(tmp_path / "bomb.png"))


def test_pictures_that_are_decoded_as_a_whole_have_a_limit_of_their_own(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.bmp")
    with pytest.raises(ImageLimits, match="100 x 100"):
        open_image(ImageRef(tmp_path / "a.bmp"), Limits(pixels=9_999))


@pytest.mark.parametrize("end", ["png", "tif", "bmp"])
def test_two_tones_are_black_and_white(tmp_path: Path, end: str) -> None:
    tones = np.add.outer(np.arange(40), np.arange(56)) % 5 == 0
    Image.fromarray(tones).save(tmp_path / f"a.{end}")
    with closing(open_image(ImageRef(tmp_path / f"a.{end}"))) as image:
        assert image.info.validity == "none"
        np.testing.assert_array_equal(whole(image).values[..., 0], tones * 255)


def test_gray_with_alpha_has_one_band(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(np.dstack([ramp, ramp])).save(tmp_path / "a.png")
    with closing(open_image(ImageRef(tmp_path / "a.png"))) as image:
        pixels = whole(image)
        assert (image.info.bands, image.info.validity) == (["gray"], "alpha")
        assert pixels.valid is not None
        np.testing.assert_array_equal(pixels.valid, ramp > 0)

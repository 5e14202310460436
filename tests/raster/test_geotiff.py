"""GeoTIFF, COG and their kin through rasterio: bands, masks, levels, sidecars, refusals."""

import threading
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC

from foveate.errors import ImageLimits, ImageUnreadable, ImageUnsupported
from raster.geometry import Region
from raster.image import ImageRef, RasterImage, open_image
from tests.raster.contract import ReaderContract, whole
from tests.shared import DATA

GEO = DATA / "geotiff"
UTM = {"crs": "EPSG:32618", "transform": Affine(2, 0, 500_000, 0, -2, 4_000_000)}


def write(path: Path, values: NDArray[Any], **profile: Any) -> Path:
    """`values`: (bands, height, width)."""
    colors = profile.pop("colors", None)
    count, height, width = values.shape
    profile = {"driver": "GTiff", "dtype": values.dtype, **UTM, **profile}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", width=width, height=height, count=count, **profile) as file:
            if colors:
                file.colorinterp = colors
            file.write(values)
    return path


def noise(shape: tuple[int, ...], dtype: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(3).integers(1, 200, shape).astype(dtype)


class TestInternalMask(ReaderContract):
    reader, path = "rasterio", GEO / "cogeo.tif"

    def opened(self) -> RasterImage:
        return open_image(ImageRef(self.path, reader=self.reader))


class TestInt16(ReaderContract):
    reader, path = "rasterio", GEO / "cog_int16.tif"

    def test_overviews_whose_sizes_were_rounded_are_levels(self, image: RasterImage) -> None:
        assert [level.height for level in image.info.levels] == [2667, 1334, 667, 334]
        assert image.info.area_or_point == "Point"


class TestOddLadder(ReaderContract):
    reader, path = "rasterio", GEO / "cog_dateline.tif"

    def opened(self) -> RasterImage:
        return open_image(ImageRef(self.path, reader=self.reader))


class TestBgraUint16(ReaderContract):
    reader, path = "rasterio", GEO / "RGBA.uint16.tif"

    def test_alpha_is_validity_and_bands_keep_the_files_order(self, image: RasterImage) -> None:
        assert image.info.bands == ["blue", "green", "red"]
        with rasterio.open(self.path) as file:
            alpha, blue = file.read(4), file.read(1)
        pixels = whole(image)
        assert pixels.valid is not None
        np.testing.assert_array_equal(pixels.valid, alpha > 0)
        np.testing.assert_array_equal(pixels.values[..., 0], blue)
        assert 0 < pixels.valid.mean() < 1


class TestFloatWithNan(ReaderContract):
    reader, path = "rasterio", GEO / "float_nan.tif"


class TestNodata(ReaderContract):
    reader, path = "rasterio", GEO / "RGB.byte.tif"


class TestPlanarStrips(ReaderContract):
    reader, path = "rasterio", GEO / "rgb_deflate.tif"


class TestExternalMask(ReaderContract):
    reader, path = "rasterio", GEO / "colorado_extmask.tif"

    def test_sidecars_count_only_when_asked_for_and_are_named(self, image: RasterImage) -> None:
        assert image.info.validity == "mask"
        assert any("validity" in note and "colorado_extmask.tif.msk" in note for note in image.info.warnings)
        with closing(open_image(ImageRef(self.path, sidecars=False))) as alone:
            assert (alone.info.validity, alone.info.warnings) == ("none", [])


class TestPalette(ReaderContract):
    reader = "rasterio"

    @pytest.fixture(autouse=True)
    def _written(self, tmp_path: Path) -> None:
        self.indices = np.random.default_rng(5).integers(0, 4, (90, 70), np.uint8)
        self.path = tmp_path / "palette.tif"
        profile = {"driver": "GTiff", "dtype": "uint8", "nodata": 2, **UTM}
        with rasterio.open(self.path, "w", width=70, height=90, count=1, **profile) as file:
            file.write_colormap(1, {0: (0, 0, 0), 1: (250, 10, 20), 2: (9, 9, 9), 3: (0, 0, 255)})
            file.write(self.indices, 1)

    def test_indices_become_colours(self, image: RasterImage) -> None:
        pixels = whole(image)
        assert image.info.bands == ["red", "green", "blue"]
        assert pixels.values[self.indices == 1][0].tolist() == [250, 10, 20]
        assert pixels.valid is not None
        np.testing.assert_array_equal(pixels.valid, self.indices != 2)


@pytest.mark.parametrize(
    "name",
    [one.name for one in sorted(GEO.iterdir()) if one.suffix in (".tif", ".tiff") and one.name != "slc.tif"],
)
def test_validity_is_gdals_dataset_mask_and_not_a_number(name: str) -> None:
    with closing(open_image(ImageRef(GEO / name))) as image:
        size = Region(0, 0, min(image.info.width, 1500), min(image.info.height, 1500))
        valid = image.read(0, size).valid
        with rasterio.open(GEO / name) as file:
            window = rasterio.windows.Window(0, 0, size.width, size.height)
            expected = file.dataset_mask(window=window) > 0
            if file.dtypes[0].startswith("float"):
                expected &= ~np.isnan(file.read(1, window=window))
        np.testing.assert_array_equal(np.ones_like(expected) if valid is None else valid, expected)


def test_places_are_carried_exactly() -> None:
    for name in ("rotated.tif", "inverted_lat.tif", "cog_gcps_ovr.tif", "cog_hirise_mars.tif"):
        with closing(open_image(ImageRef(GEO / name))) as image, rasterio.open(GEO / name) as file:
            info = image.info
            assert info.transform == (None if file.transform.is_identity else tuple(file.transform)[:6])
            assert len(info.gcps) == len(file.gcps[0])
            assert info.kind == "scene"
            if file.crs or file.gcps[1]:
                assert rasterio.CRS.from_wkt(info.crs) == (file.crs or file.gcps[1])


def test_alpha_may_stand_anywhere(tmp_path: Path) -> None:
    values = noise((4, 40, 30))
    values[0, :10] = 0
    colors = [ColorInterp.alpha, ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    path = write(tmp_path / "argb.tif", values, colors=colors)
    with closing(open_image(ImageRef(path))) as image:
        pixels = whole(image)
        assert image.info.bands == ["red", "green", "blue"]
        np.testing.assert_array_equal(pixels.values, np.moveaxis(values[1:], 0, 2))
        assert pixels.valid is not None
        np.testing.assert_array_equal(pixels.valid, values[0] > 0)


def test_min_is_white_is_turned_round(tmp_path: Path) -> None:
    values = noise((1, 20, 20))
    path = write(tmp_path / "white.tif", values, photometric="MINISWHITE", nodata=7)
    with closing(open_image(ImageRef(path))) as image:
        pixels = whole(image)
        np.testing.assert_array_equal(pixels.values[..., 0], 255 - values[0])
        assert pixels.valid is not None
        np.testing.assert_array_equal(pixels.valid, values[0] != 7)


@pytest.mark.parametrize(("bits", "dtype"), [(2, np.uint8), (4, np.uint8), (12, np.uint16)])
def test_white_is_the_largest_number_of_the_files_bits(tmp_path: Path, bits: int, dtype: type) -> None:
    values = (noise((1, 20, 20)).astype(int) * 7 % 2**bits).astype(dtype)
    path = write(tmp_path / "white.tif", values, photometric="MINISWHITE", nbits=bits)
    with closing(open_image(ImageRef(path))) as image:
        np.testing.assert_array_equal(whole(image).values[..., 0], 2**bits - 1 - values[0])
        assert [f"--rescale 0,{2**bits - 1}" in warning for warning in image.info.warnings] == [True] * (bits < 8)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_types_are_the_files(tmp_path: Path, dtype: str) -> None:
    values = noise((2, 33, 17)).astype(dtype)
    path = write(tmp_path / "a.tif", values, BIGTIFF="YES", interleave="band")
    with closing(open_image(ImageRef(path))) as image:
        assert image.info.dtype == dtype
        np.testing.assert_array_equal(whole(image).values, np.moveaxis(values, 0, 2))


def test_not_a_number_is_no_data_without_being_declared(tmp_path: Path) -> None:
    values = np.ones((2, 8, 8), np.float32)
    values[1, 3, 4] = np.nan
    with closing(open_image(ImageRef(write(tmp_path / "nan.tif", values)))) as image:
        valid = whole(image).valid
        assert valid is not None
        assert np.argwhere(~valid).tolist() == [[3, 4]]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 700), (700, 1), (257, 255)])
def test_any_size_is_read(tmp_path: Path, width: int, height: int) -> None:
    values = noise((3, height, width))
    with closing(open_image(ImageRef(write(tmp_path / "a.tif", values)))) as image:
        np.testing.assert_array_equal(whole(image).values, np.moveaxis(values, 0, 2))


@pytest.mark.parametrize(("image", "world"), [("A.TIF", "A.TFW"), ("B.TIF", "B.tfw"), ("c.tif", "c.TFW")])
def test_a_world_file_counts_whatever_the_case_of_its_name(tmp_path: Path, image: str, world: str) -> None:
    path = write(tmp_path / image, noise((3, 30, 40)), crs=None, transform=None)
    (tmp_path / world).write_text("2\n0\n0\n-2\n500001\n3999999\n")
    with closing(open_image(ImageRef(path))) as opened:
        assert list(opened.info.transform or ()) == [2, 0, 500_000, 0, -2, 4_000_000]
        assert any(world in note for note in opened.info.warnings)


@pytest.mark.parametrize("side", [float("nan"), float("inf")])
def test_a_place_that_is_not_finite_is_refused(tmp_path: Path, side: float) -> None:
    path = write(tmp_path / "a.tif", noise((3, 30, 40)), transform=Affine(side, 0, 1, 0, -1, 1))
    with pytest.raises(ImageUnreadable):
        open_image(ImageRef(path))


def test_rpcs_alone_are_no_place_and_said_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise((3, 30, 40)), crs=None, transform=None)
    coefficients = [1.0] + [0.0] * 19
    rpcs = RPC(0, 100, 15, 15, coefficients, coefficients, 10, 1, 20, 20, coefficients, coefficients, 50, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "r+") as dataset:
            dataset.rpcs = rpcs
    with closing(open_image(ImageRef(path))) as image:
        assert image.info.transform is None
        assert any("orthorectify" in note for note in image.info.warnings)


def test_world_file_places_a_picture_only_with_sidecars(tmp_path: Path) -> None:
    values = noise((3, 30, 40))
    path = write(tmp_path / "a.tif", values, crs=None, transform=None)
    (tmp_path / "a.tfw").write_text("2\n0\n0\n-2\n500001\n3999999\n")
    with closing(open_image(ImageRef(path))) as image:
        assert list(image.info.transform or ()) == [2, 0, 500_000, 0, -2, 4_000_000]
        assert any("a.tfw" in note for note in image.info.warnings)
    with closing(open_image(ImageRef(path, sidecars=False))) as image:
        assert image.info.transform is None


@pytest.mark.parametrize(("reader", "reason"), [("rasterio", "got 38232"), ("direct", "the file ends 8854 bytes")])
def test_damaged_tile_leaves_the_handle_usable(reader: str, reason: str) -> None:
    with closing(open_image(ImageRef(DATA / "broken/corrupt_cog.tif", reader=reader))) as image:
        good = image.read(0, Region(0, 0, 512, 512))
        place = r"corrupt_cog\.tif: 512 x 512 px at \(512, 512\) of level 0 "
        with pytest.raises(ImageUnreadable, match=f"{place}.*{reason}"):
            image.read(0, Region(512, 512, 512, 512))
        np.testing.assert_array_equal(image.read(0, Region(0, 0, 512, 512)).values, good.values)


def test_settings_hold_in_every_thread() -> None:
    found: list[str] = []

    def look(sidecars: bool) -> None:
        for _ in range(5):
            with closing(open_image(ImageRef(GEO / "colorado_extmask.tif", sidecars=sidecars))) as image:
                image.read(0, Region(0, 0, 50, 50))
                found.append(f"{sidecars} {image.info.validity}")

    threads = [threading.Thread(target=look, args=(index % 2 == 0,)) for index in range(4)]
    for thread in threads:
        thread.start()
    look(True)
    for thread in threads:
        thread.join()
    assert set(found) == {"True mask", "False none"}
    assert len(found) == 25


def test_huge_blocks_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "blocks.tif"
    profile = {"tiled": True, "blockxsize": 16_384, "blockysize": 16_384, "SPARSE_OK": True, **UTM}
    with rasterio.open(path, "w", driver="GTiff", width=20_000, height=20_000, count=3, dtype="uint8", **profile):
        pass
    with pytest.raises(ImageLimits, match="blocks of 16384 x 16384 px, 805306368 bytes each"):
        open_image(ImageRef(path))


def test_complex_pixels_are_refused_with_the_remedy() -> None:
    with pytest.raises(ImageUnsupported, match="complex_int16") as caught:
        open_image(ImageRef(GEO / "slc.tif"))
    assert "amplitude" in caught.value.hint

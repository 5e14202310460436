"""Tiles read past the library: the same pixels in the same places, or not at all."""

import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling

import raster.direct
from foveate.errors import ImageUnreadable
from raster.chroma import coloured
from raster.geometry import Region
from raster.geotiff import RasterioImage
from raster.image import ImageRef, RasterImage, open_image
from raster.resample import resample
from raster.tiles import TiledPage
from tests.raster.contract import ReaderContract, whole
from tests.raster.svs import write_svs
from tests.shared import DATA

SVS = DATA / "slides" / "CMU-1-Small-Region.svs"
UTM = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)}
TILED = {"tiled": True, "blockxsize": 128, "blockysize": 64}


class TestAperio(ReaderContract):
    reader, path = "direct", SVS


class TestCogWithMask(ReaderContract):
    reader, path = "direct", DATA / "geotiff" / "cog_rgb_mask.tif"


class TestSubsampledJpegWithMask(ReaderContract):
    reader, path = "direct", DATA / "geotiff" / "cogeo.tif"


class TestCogWithNodata(ReaderContract):
    reader, path = "direct", DATA / "geotiff" / "cog_gcps_ovr.tif"


class TestUint16(ReaderContract):
    reader, path = "direct", DATA / "geotiff" / "rgb_uint16.tif"


def smooth(height: int, width: int, bands: int = 3, top: int = 255, seed: int = 1) -> NDArray[Any]:
    """A picture with structure that any codec keeps: waves of a few pixels' length."""
    y, x = np.mgrid[:height, :width]
    phase = np.random.default_rng(seed).uniform(0, 6, bands)
    waves = [np.sin(x / 9 + one) * np.cos(y / 11 - one) for one in phase]
    return ((np.stack(waves, axis=-1) + 1) / 2 * top).astype(np.uint8 if top < 256 else np.uint16)


def write_geotiff(path: Path, values: NDArray[Any], **profile: Any) -> Path:
    """`values`: (height, width, bands)."""
    height, width, count = values.shape
    colors = profile.pop("colors", None)
    settings = {"driver": "GTiff", "dtype": values.dtype, **UTM, **TILED, **profile}
    with rasterio.open(path, "w", width=width, height=height, count=count, **settings) as file:
        if colors:
            file.colorinterp = colors
        file.write(np.moveaxis(values, 2, 0))
        file.build_overviews([2], Resampling.average)
    return path


def both(path: Path) -> tuple[RasterImage, RasterImage]:
    direct = open_image(ImageRef(path))
    return direct, open_image(ImageRef(path, reader="rasterio"))


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("compress", ["none", "lzw", "deflate", "zstd"])
@pytest.mark.parametrize("top", [255, 65535])
@pytest.mark.parametrize("endianness", ["LITTLE", "BIG"])
def test_lossless_tiles_are_what_gdal_reads(
    tmp_path: Path, interleave: str, predictor: int, compress: str, top: int, endianness: str
) -> None:
    profile = {"interleave": interleave, "compress": compress, "endianness": endianness}
    if compress != "none":
        profile["predictor"] = predictor
    path = write_geotiff(tmp_path / "a.tif", smooth(200, 300, top=top), **profile)
    direct, reference = both(path)
    assert direct.info.reader == "direct"
    assert direct.info.model_copy(update={"reader": "rasterio"}) == reference.info
    for level in range(2):
        np.testing.assert_array_equal(whole(direct, level).values, whole(reference, level).values)
    direct.close()
    reference.close()


@pytest.mark.parametrize(("photometric", "bands"), [("ycbcr", 3), ("rgb", 3), ("minisblack", 1)])
def test_jpeg_tiles_with_shared_tables_are_within_the_bounds(tmp_path: Path, photometric: str, bands: int) -> None:
    # Colours that change slowly: GDAL's libjpeg 9 spreads subsampled ones its own way, up to 13 levels at hard edges.
    values = np.repeat(smooth(300, 300, 1), bands, axis=2) // 2 + np.arange(bands, dtype=np.uint8) * 40
    path = write_geotiff(tmp_path / "a.tif", values, compress="jpeg", photometric=photometric)
    direct, reference = both(path)
    assert direct.info.reader == "direct"
    for level in range(2):
        difference = np.abs(whole(direct, level).values.astype(int) - whole(reference, level).values)
        assert difference.mean() <= 1
        assert difference.max() <= 10
    direct.close()
    reference.close()


def test_alpha_is_validity(tmp_path: Path) -> None:
    values = smooth(150, 200, 4)
    values[:, :70, 3] = 0
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    direct, reference = both(write_geotiff(tmp_path / "a.tif", values, compress="deflate", colors=colors))
    assert (direct.info.reader, direct.info.validity) == ("direct", "alpha")
    mine, its = whole(direct), whole(reference)
    assert mine.valid is not None
    assert its.valid is not None
    np.testing.assert_array_equal(mine.values, its.values)
    np.testing.assert_array_equal(mine.valid, its.valid)
    direct.close()
    reference.close()


def test_tiles_that_a_sparse_file_lacks_are_what_gdal_says(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    settings = {"driver": "GTiff", "dtype": "uint8", "count": 3, "nodata": 7, "sparse_ok": True, "compress": "lzw"}
    with rasterio.open(path, "w", width=500, height=400, **settings, **UTM, **TILED) as file:
        file.write(np.moveaxis(smooth(64, 128), 2, 0), window=rasterio.windows.Window(128, 64, 128, 64))
    direct, reference = both(path)
    assert direct.info.reader == "direct"
    mine, its = whole(direct), whole(reference)
    np.testing.assert_array_equal(mine.values, its.values)
    assert mine.valid is not None
    assert its.valid is not None
    np.testing.assert_array_equal(mine.valid, its.valid)
    assert not mine.valid[:64].any()
    for region in (Region(0, 0, 100, 60), Region(100, 10, 300, 300), Region(140, 70, 20, 20)):
        there = its.valid[region.slices()]
        np.testing.assert_array_equal(direct.read_valid(0, region), there)
    direct.close()
    reference.close()


def test_a_mask_tells_data_from_none_where_a_sparse_file_lacks_tiles(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    settings = {"driver": "GTiff", "dtype": "uint8", "count": 3, "sparse_ok": True, "compress": "lzw"}
    valid = np.zeros((400, 500), bool)
    valid[:64, :128] = True
    valid[200:, 250:] = True  # black, and data
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"),
        rasterio.open(path, "w", width=500, height=400, **settings, **UTM, **TILED) as file,
    ):
        file.write(np.moveaxis(smooth(64, 128), 2, 0), window=rasterio.windows.Window(0, 0, 128, 64))
        file.write_mask(valid)
    with closing(open_image(ImageRef(path))) as image:
        assert (image.info.reader, image.info.validity) == ("direct", "mask")
        for region in (Region(0, 300, 60, 60), Region(300, 300, 60, 60), Region(0, 0, 500, 400)):
            np.testing.assert_array_equal(image.read(0, region).valid, valid[region.slices()])


def test_what_a_sparse_file_lacks_is_decoded_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse.tif"
    settings = {"driver": "GTiff", "dtype": "uint8", "count": 3, "nodata": 0, "sparse_ok": True, "compress": "lzw"}
    with rasterio.open(path, "w", width=2000, height=2000, **settings, **UTM, **TILED) as file:
        file.write(np.moveaxis(smooth(64, 128), 2, 0), window=rasterio.windows.Window(128, 64, 128, 64))
    with closing(open_image(ImageRef(path))) as image:
        assert image.info.reader == "direct"
        asked: list[Region] = []
        read = RasterioImage.read
        monkeypatch.setattr(RasterioImage, "read", lambda *args: asked.append(args[2]) or read(*args))
        empty, some = image.read(0, Region(500, 500, 1000, 1000)), image.read(0, Region(0, 0, 200, 100))
        assert not empty.values.any()
        assert (empty.decoded, some.decoded) == (0, 72 * 36)
        valid = image.read_valid(0, Region(700, 900, 1000, 1000))
    assert valid is not None
    assert not valid.any()
    assert [region.size.area for region in asked] == [1]


@pytest.mark.parametrize("nodata", ["0", "9", "255"])
def test_a_pixel_is_no_data_if_all_its_samples_are(tmp_path: Path, nodata: str) -> None:
    path = tmp_path / "a.tif"
    values = np.random.default_rng(0).choice([0, 9, 255], (256, 256, 3)).astype(np.uint8)
    tifffile.imwrite(path, values, tile=(64, 64), photometric="rgb", extratags=[(42113, "s", 0, nodata, True)])
    direct, reference = both(path)
    assert (direct.info.reader, direct.info.nodata) == ("direct", float(nodata))
    valid = whole(direct).valid
    np.testing.assert_array_equal(valid, whole(reference).valid)
    np.testing.assert_array_equal(valid, (values != float(nodata)).any(axis=2))
    direct.close()
    reference.close()


@pytest.mark.parametrize("corner", [(1003, 1207), (1537, 902)])
def test_a_square_lies_where_its_level_says_however_inexact_the_downsamples(
    tmp_path: Path, corner: tuple[int, int]
) -> None:
    # Downsamples of 2.0013 x 1.9965 and so on: what a scanner's rounding leaves, on levels that are not whole parts.
    picture = np.zeros((2300, 1537 + 1000, 3), np.uint8)
    x, y = corner
    picture[y : y + 160, x : x + 160] = 255
    height, width = picture.shape[:2]
    levels = [picture]
    for step in (2, 4, 8):
        size = Region(0, 0, round(width / step) - 1, height // step + 2).size
        levels.append(resample(picture, Region(0, 0, width, height), (0, 0, width, height), size))
    path = write_svs(tmp_path / "square.svs", levels)
    with closing(open_image(ImageRef(path))) as image:
        assert (image.info.reader, image.info.warnings) == ("direct", [])
        for level, said in enumerate(image.info.levels):
            assert said.downsample == (width / said.width, height / said.height)
            bright = whole(image, level).values[..., 0].astype(float)
            rows, columns = np.mgrid[: said.height, : said.width] + 0.5
            centre = (bright * columns).sum() / bright.sum(), (bright * rows).sum() / bright.sum()
            for found, at, downsample in zip(centre, (x + 80, y + 80), said.downsample, strict=True):
                assert abs(found - at / downsample) < 0.5


def test_openslide_levels_agree_after_its_own_offset(tmp_path: Path) -> None:
    picture = smooth(2000, 1900)
    levels = [picture, resample(picture, Region(0, 0, 1900, 2000), (0, 0, 1900, 2000), Region(0, 0, 471, 503).size)]
    with closing(open_image(ImageRef(write_svs(tmp_path / "waves.svs", levels)))) as image:
        assert (image.info.reader, len(image.info.levels)) == ("direct", 2)


class Lying(TiledPage):
    """Tiles as another decoder might see them; `lie` changes their pixels."""

    lie: Any = staticmethod(lambda block: block)

    def decode(self, data: bytes) -> NDArray[Any]:
        return np.ascontiguousarray(type(self).lie(super().decode(data)))


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        (lambda block: np.roll(block, 1, axis=1), "differ|shifted"),
        (lambda block: block[..., ::-1], "differ"),
        (lambda block: np.clip(block.astype(int) + 2, 0, 255).astype(np.uint8), "2.0 grey levels"),
        (lambda block: np.where(np.arange(block.shape[1])[:, None] == 50, block // 2, block), "differ"),
    ],
)
def test_a_file_that_comes_out_differently_is_left_to_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lie: Any, word: str
) -> None:
    caplog.set_level("INFO", logger="raster.direct")
    original = raster.direct.tiled_pages
    copy = tmp_path / "copy.svs"
    copy.write_bytes(SVS.read_bytes())

    def lying(*args: Any) -> Any:
        pages = original(*args)
        assert pages is not None
        kind = type("Liar", (Lying,), {"lie": staticmethod(lie)})
        return tuple(kind(**vars(page)) for page in pages)

    monkeypatch.setattr(raster.direct, "tiled_pages", lying)
    for reader in (None, "direct", "openslide"):
        with closing(open_image(ImageRef(copy, reader=reader))) as image:
            assert image.info.reader == "openslide"
            assert image.info.warnings == [], "nothing that a user could act on"
            assert whole(image).values.shape == (2967, 2220, 3)
    (record,) = caplog.records
    assert any(part in record.getMessage() for part in word.split("|"))


def colourful(height: int, width: int) -> NDArray[np.uint8]:
    """Sharp edges between colours, and waves between: what ways to double chroma differ by, none of it out of range."""
    values = smooth(height, width, top=130) + np.uint8(60)
    rng = np.random.default_rng(3)
    for y, x in rng.integers(0, (height - 20, width - 20), (60, 2)).tolist():
        values[y : y + 13, x : x + 11] = rng.integers(0, 2, 3) * 110 + 70
    return values


def test_jpeg_in_ycbcr_as_gdal_writes_it_is_read_directly_with_gdals_chroma(tmp_path: Path) -> None:
    """4:2:0, the commonest kind of aerial photograph; which chroma it is depends on the libjpeg that GDAL came with."""
    path = write_geotiff(tmp_path / "a.tif", colourful(500, 700), compress="jpeg", photometric="ycbcr")
    direct, reference = both(path)
    with closing(direct), closing(reference):
        assert (direct.info.reader, direct.info.warnings) == ("direct", [])
        for level in range(2):
            mine, its = (whole(image, level).values.astype(int) for image in (direct, reference))
            assert np.abs(mine - its).max() <= 5
            assert np.abs(mine - its).mean() <= 0.5


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_every_halving_of_chroma_is_read_directly(tmp_path: Path, subsampling: tuple[int, int]) -> None:
    path = tmp_path / "a.tif"
    options = {"photometric": "ycbcr", "subsampling": subsampling, "compressionargs": {"level": 90}}
    tifffile.imwrite(path, colourful(300, 400), tile=(128, 128), compression="jpeg", **options)
    direct, reference = both(path)
    with closing(direct), closing(reference):
        assert direct.info.reader == "direct"
        difference = np.abs(whole(direct).values.astype(int) - whole(reference).values)
        assert difference.max() <= 5


def test_doubled_chroma_has_the_frequencies_of_its_block() -> None:
    def waves(size: int) -> NDArray[np.float64]:
        """Cosines of a block, one by column and one by row, around no colour."""
        place = (2 * np.arange(size) + 1) / (2 * size)
        return 128 + 40 * np.cos(3 * np.pi * place) + 30 * np.cos(2 * np.pi * place)[:, None]

    ycc = np.full((16, 16, 3), 128, np.uint8)
    ycc[..., 2] = np.rint(waves(8)).repeat(2, 0).repeat(2, 1)
    red = coloured(ycc, (True, True))[..., 0].astype(int)
    wanted = np.clip(128 + 1.402 * (waves(16) - 128), 0, 255)
    assert np.abs(red - wanted).max() <= 2


def test_a_damaged_tile_is_an_error_there_and_nowhere_else(tmp_path: Path) -> None:
    source = SVS.read_bytes()
    broken = tmp_path / "broken.svs"
    broken.write_bytes(source[:600_000] + bytes(20_000) + source[620_000:])
    bad: dict[str, set[tuple[int, int]]] = {"direct": set(), "openslide": set()}
    for reader, places in bad.items():
        with closing(open_image(ImageRef(broken, reader=reader))) as image:
            assert image.info.reader == reader
            for y in range(0, 2880, 240):
                for x in range(0, 2160, 240):
                    try:
                        image.read(0, Region(x, y, 240, 240))
                    except ImageUnreadable as error:
                        assert f"({x}, {y})" in error.message
                        places.add((x, y))
    assert bad["direct"] == bad["openslide"]
    assert 1 <= len(bad["direct"]) < 10


@pytest.mark.parametrize("compress", ["lzw", "deflate", "zstd", "jpeg", "none"])
def test_a_file_cut_short_is_damaged_where_it_ends(tmp_path: Path, compress: str) -> None:
    path = write_geotiff(tmp_path / "a.tif", smooth(512, 512), compress=compress)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        place, count = page.dataoffsets[13], page.databytecounts[13]
        entry = page.tags[325].valueoffset + 13 * (2 if page.tags[325].dtype == 3 else 4)
        width = "<H" if page.tags[325].dtype == 3 else "<I"
    content = bytearray(path.read_bytes())
    struct.pack_into(width, content, entry, count // 2)
    path.write_bytes(content)
    assert place
    with closing(open_image(ImageRef(path, reader="direct"))) as image:
        good = image.read(0, Region(0, 0, 512, 64))
        assert good.values.any()
        with pytest.raises(ImageUnreadable, match="level 0"):
            image.read(0, Region(128, 192, 128, 64))


def test_a_slide_with_holes_is_openslides_business(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "a.svs", [smooth(600, 600), smooth(150, 150)])
    with closing(open_image(ImageRef(path))) as image:
        assert image.info.reader == "direct"
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[325]
        entry, width = tag.valueoffset + 4 * (2 if tag.dtype == 3 else 4), "<H" if tag.dtype == 3 else "<I"
    content = bytearray(path.read_bytes())
    struct.pack_into(width, content, entry, 0)
    path.write_bytes(content)
    with closing(open_image(ImageRef(path))) as image:
        assert (image.info.reader, image.info.warnings) == ("openslide", [])
        assert (image.read(0, Region(300, 300, 100, 100)).values == 255).all()


@pytest.mark.parametrize("name", ["geotiff/cog_cmap.tif", "geotiff/cog_int16.tif", "slides/test_orient6.tif"])
def test_what_is_not_plain_stays_with_its_library(name: str) -> None:
    with closing(open_image(ImageRef(DATA / name))) as image:
        assert image.info.reader == "rasterio"
        assert not [note for note in image.info.warnings if "directly" in note]


def test_the_check_is_the_same_for_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svs", "b"):
        (tmp_path / name).write_bytes(SVS.read_bytes())
    assert raster.direct._seed(tmp_path / "a.svs") == raster.direct._seed(tmp_path / "b")
    assert raster.direct._seed(tmp_path / "a.svs") != raster.direct._seed(DATA / "slides" / "small.svs")

"""raster/convert.py: the copy is the image, in tiles and levels; empty stays empty; damage is handed on."""

import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window

import raster.pyramid
from foveate.errors import Dismissed, ImageDamaged, ImageUnreadable
from foveate.schema import ImageInfo, LevelInfo
from raster import convert as module
from raster.convert import Converted, convert, converted_at, needs_conversion
from raster.geometry import Region, Size
from raster.image import ImageRef, Pixels, RasterImage, open_image
from raster.pyramid import halved
from tests.raster.cards import make_info
from tests.shared import DATA


def read_all(path: Path) -> tuple[ImageInfo, Pixels]:
    with closing(open_image(ImageRef(path))) as image:
        return image.info, image.read(0, Region(0, 0, image.info.width, image.info.height))


def copied(copy: Converted, level: int = 0) -> tuple[ImageInfo, Pixels]:
    """What is read of a copy that has all levels."""
    assert not copy.halved
    with closing(copy.open(ImageRef(Path("nowhere")))) as image:
        size = image.info.levels[level]
        return image.info, image.read(level, Region(0, 0, size.width, size.height))


def converted(path: Path, folder: Path) -> Converted:
    with closing(open_image(ImageRef(path))) as image:
        info = image.info
    return convert(ImageRef(path), info, folder / "copy.tif", lambda _: None)


def write_tiff(path: Path, values: Any, **options: Any) -> None:
    """A GeoTIFF of (bands, height, width) with a place on Earth, so that no slide reader asks for it."""
    bands, height, width = values.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": values.dtype}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 4e6)}
    with rasterio.open(path, "w", **profile, **place, **options) as file:
        file.write(values)


def assert_same_picture(source: Path, copy: Converted) -> None:
    info, pixels = read_all(source)
    copied_info, there = copied(copy)
    valid = np.ones(pixels.values.shape[:2], bool) if pixels.valid is None else pixels.valid
    copied_valid = np.ones_like(valid) if there.valid is None else there.valid
    assert (copied_info.width, copied_info.height, copied_info.dtype) == (info.width, info.height, info.dtype)
    assert copied_info.bands == info.bands
    assert np.array_equal(copied_valid, valid)
    assert np.array_equal(there.values[valid], pixels.values[valid], equal_nan=info.dtype.startswith("float"))


@pytest.mark.parametrize(
    "name",
    [
        "geotiff/RGB.byte.tif",
        "geotiff/rgb_deflate.tif",
        "geotiff/RGBA.uint16.tif",
        "geotiff/alpha.tif",
        "geotiff/cog_rgb_mask.tif",
        "geotiff/colorado_extmask.tif",
        "geotiff/cog_int16.tif",
        "geotiff/float_nan.tif",
        "geotiff/geo-5b.tif",
        "geotiff/world.jp2",
        "photos/Landscape_6.jpg",
        "photos/indexed.png",
        "photos/rgba.png",
        "photos/cmyk.jpg",
        "slides/CMU-1-Small-Region.svs",
        "slides/OS-2-ndpi.ome.tif",
    ],
)
def test_the_copy_is_the_image(name: str, tmp_path: Path) -> None:
    copy = converted(DATA / name, tmp_path)
    assert copy.damaged == ()
    assert_same_picture(DATA / name, copy)
    info, _ = copied(copy)
    assert len(info.levels) > 1
    assert info.levels[0].tile[0] < info.width or info.width <= 512
    assert converted_at(tmp_path / "copy.tif") == copy


@pytest.mark.parametrize("band_bytes", [40_000, 300_000, 5_000_000])
@pytest.mark.parametrize("name", ["geotiff/RGB.byte.tif", "geotiff/alpha.tif", "slides/CMU-1-Small-Region.svs"])
def test_narrow_and_low_passages_copy_the_same(
    name: str, band_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BAND_BYTES", band_bytes)
    assert_same_picture(DATA / name, converted(DATA / name, tmp_path))


@pytest.mark.parametrize("flat_pixels", [10_000, 64_000_000])
@pytest.mark.parametrize("name", ["geotiff/RGB.byte.tif", "slides/CMU-1-Small-Region.svs"])
def test_every_block_is_decoded_once(
    name: str, flat_pixels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BAND_BYTES", 2_000_000)
    monkeypatch.setattr(module, "_FLAT_PIXELS", flat_pixels)
    asked: list[Region] = []

    def watched(ref: ImageRef) -> RasterImage:
        image = open_image(ref)
        read = image.read

        def counted(level: int, region: Region) -> Pixels:
            asked.append(region)
            return read(level, region)

        if ref.path == DATA / name:
            monkeypatch.setattr(image, "read", counted, raising=False)
        return image

    monkeypatch.setattr(module, "open_image", watched)
    converted(DATA / name, tmp_path)
    info, _ = read_all(DATA / name)
    tile_w, tile_h = info.levels[0].tile
    assert sum(region.size.area for region in asked) == info.width * info.height
    assert all(region.x % tile_w == 0 and region.y % tile_h == 0 for region in asked)
    assert all(region.x1 % tile_w == 0 or region.x1 == info.width for region in asked)
    assert all(region.y1 % tile_h == 0 or region.y1 == info.height for region in asked)


def bumpy(height: int, width: int, dtype: str, bands: int = 3) -> Any:
    """Waves and noise, with a corner and a stripe of zeros."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(5).integers(0, 40, (bands, height, width))
    values = (80 + 60 * np.sin(x / 17) * np.cos(y / 23) + noise).astype(dtype)
    values[:, :91, :133] = 0
    values[:, :, 301:304] = 0
    return values


@pytest.mark.parametrize(
    ("size", "dtype", "nodata"),
    [
        ((1024, 1536), "uint8", None),
        ((1026, 1538), "uint8", 0),
        ((1026, 1538), "uint16", None),
        ((771, 1031), "uint16", 0),
        ((771, 1030), "float32", 0),
        ((770, 1031), "int16", None),
    ],
)
def test_only_the_levels_that_are_missing_are_made(
    size: tuple[int, int], dtype: str, nodata: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a well stored level 0; bit for bit those of a whole copy."""
    path = tmp_path / "in.tif"
    write_tiff(path, bumpy(*size, dtype), tiled=True, blockxsize=256, blockysize=128, nodata=nodata)
    whole = converted(path, tmp_path)
    assert not whole.halved
    monkeypatch.setattr(module, "_FLAT_PIXELS", 10_000)
    monkeypatch.setattr(module, "_BAND_BYTES", 1_000_000)
    (tmp_path / "half").mkdir()
    half = converted(path, tmp_path / "half")
    assert half.halved
    assert converted_at(half.paths[0]) == half
    with closing(whole.open(ImageRef(path))) as expected, closing(half.open(ImageRef(path))) as image:
        assert (image.info.width, image.info.height, image.info.levels[0].tile) == (size[1], size[0], (256, 128))
        assert image.info.levels[-1].width <= 512
        for level, there in enumerate(image.info.levels):
            assert there.downsample == (2**level, 2**level) == expected.info.levels[level].downsample
            assert (there.width, there.height) == (-(-size[1] // 2**level), -(-size[0] // 2**level))
            region = Region(0, 0, there.width, there.height)
            mine, its = image.read(level, region), expected.read(level, region)
            assert (mine.valid is None) == (its.valid is None) == (nodata is None and dtype != "float32")
            seen = np.ones(region.size.shape, bool) if mine.valid is None else mine.valid
            assert its.valid is None or np.array_equal(its.valid, seen)
            assert np.array_equal(mine.values[seen], its.values[seen])
            assert np.array_equal(image.read_valid(level, region), mine.valid)


@pytest.mark.parametrize("nodata", [None, 0])
def test_where_sides_are_even_the_levels_are_gdals_averages(nodata: int | None, tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    write_tiff(path, bumpy(1024, 1536, "uint8"), tiled=True, blockxsize=256, blockysize=128, nodata=nodata)
    copy = converted(path, tmp_path)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    for level in (1, 2):
        _, mine = copied(copy, level)
        with rasterio.open(path, overview_level=level - 1) as file:
            its = np.moveaxis(file.read(), 0, 2)
        seen = np.ones(mine.values.shape[:2], bool) if mine.valid is None else mine.valid
        assert np.array_equal(mine.values[seen], its[seen])


def test_the_halved_image_is_the_mean_of_valid_pixels() -> None:
    values = np.array([[1, 2, 9, 8], [4, 100, 8, 9], [7, 7, 255, 255], [7, 8, 255, 255]], np.uint8)[..., None]
    valid = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
    found = halved(Pixels(values, valid))
    assert found.values[..., 0].tolist() == [[2, 9], [0, 255]]
    assert found.valid is not None
    assert found.valid.tolist() == [[True, True], [False, True]]
    assert halved(Pixels(values, None)).values[..., 0].tolist() == [[27, 9], [7, 255]]  # 26.75, 8.5; 7.25, 255


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("share", [None, 0.5])
def test_halving_is_the_same_in_parts_and_at_odd_sides(
    dtype: str, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(0, 200, (37, 51, 2)).astype(dtype)
    valid = None if share is None else rng.random((37, 51)) < share
    monkeypatch.setattr(raster.pyramid, "_PART", Size(8, 6))
    found = halved(Pixels(values, valid))
    seen = np.ones((37, 51), bool) if valid is None else valid
    for row in range(19):
        for column in range(26):
            square = np.s_[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            there = values[square][seen[square]].astype(float)
            assert found.valid is None or found.valid[row, column] == bool(len(there))
            if len(there):
                mean = there.mean(axis=0)
                wanted = mean if dtype == "float32" else np.floor(mean + 0.5)
                np.testing.assert_allclose(found.values[row, column], wanted, rtol=1e-6)


def test_overviews_average_valid_pixels_only(tmp_path: Path) -> None:
    values = np.zeros((3, 1024, 1024), np.uint8)
    values[:, :, 333:] = 200
    write_tiff(tmp_path / "in.tif", values, nodata=0)
    copy = converted(tmp_path / "in.tif", tmp_path)
    for level in (1, 2):
        _, pixels = copied(copy, level)
        assert pixels.valid is not None
        assert set(np.unique(pixels.values[pixels.valid])) == {200}
        assert abs(pixels.valid.mean() - (1024 - 333) / 1024) < 2**level / 1024


def test_an_image_without_any_data_has_none_in_the_copy(tmp_path: Path) -> None:
    write_tiff(tmp_path / "in.tif", np.zeros((3, 700, 700), np.uint8), nodata=0)
    _, pixels = copied(converted(tmp_path / "in.tif", tmp_path))
    assert pixels.valid is not None
    assert not pixels.valid.any()


@pytest.mark.parametrize("nodata", [None, 0])
def test_what_is_empty_takes_no_space(nodata: int | None, tmp_path: Path) -> None:
    options = {"sparse_ok": True, "tiled": True, "compress": "deflate", "nodata": nodata}
    profile = {"driver": "GTiff", "width": 6000, "height": 6000, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 4e6)}
    with rasterio.open(tmp_path / "in.tif", "w", **profile, **options, **place) as file:
        file.write(np.full((3, 100, 100), 9, np.uint8), window=Window(5000, 5500, 100, 100))
    copy = converted(tmp_path / "in.tif", tmp_path)
    assert sum(path.stat().st_size for path in copy.paths) < 60_000
    assert_same_picture(tmp_path / "in.tif", copy)


def damaged_tiff(path: Path, tiles: list[int]) -> None:
    """12 x 12 tiles of 64 px, some of which are no deflate streams."""
    values = np.random.default_rng(1).integers(0, 255, (3, 768, 768), np.uint8)
    write_tiff(path, values, tiled=True, blockxsize=64, blockysize=64, compress="deflate", interleave="pixel")
    import tifffile

    with tifffile.TiffFile(path) as file:
        offsets = file.pages[0].dataoffsets
    with path.open("r+b") as raw:
        for tile in tiles:
            raw.seek(offsets[tile])
            raw.write(b"\xff" * 64)


def test_one_damaged_tile_is_handed_on(tmp_path: Path) -> None:
    damaged_tiff(tmp_path / "in.tif", [17])
    copy = converted(tmp_path / "in.tif", tmp_path)
    place = Region(5 * 64, 64, 64, 64)
    assert copy.damaged == (place,)
    assert converted_at(copy.paths[0]) == copy
    _, pixels = copied(copy)
    expected = np.random.default_rng(1).integers(0, 255, (3, 768, 768), np.uint8).transpose(1, 2, 0)
    expected[place.slices()] = 0
    assert np.array_equal(pixels.values, expected)


def test_more_than_a_hundredth_damaged_is_too_much(tmp_path: Path) -> None:
    damaged_tiff(tmp_path / "in.tif", [17, 90])
    with pytest.raises(ImageDamaged, match="2 of 144 tiles"):
        converted(tmp_path / "in.tif", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif"]


def test_a_jpeg_that_breaks_off_is_unreadable(tmp_path: Path) -> None:
    whole = (DATA / "photos/Landscape_6.jpg").read_bytes()
    (tmp_path / "in.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageUnreadable, match=r"in\.jpg"):
        converted(tmp_path / "in.jpg", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jpg"]


def test_progress_rises_and_may_stop_the_work(tmp_path: Path) -> None:
    ref = ImageRef(DATA / "slides/CMU-1-Small-Region.svs")
    info, _ = read_all(ref.path)
    shares: list[float] = []
    convert(ref, info, tmp_path / "copy.tif", shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 3
    assert shares[-1] == 1.0

    def stop(share: float) -> None:
        raise Dismissed("cancelled", hint="submit the job again")

    with pytest.raises(Dismissed):
        convert(ref, info, tmp_path / "other.tif", stop)
    assert converted_at(tmp_path / "other.tif") is None
    assert not list(tmp_path.glob(".other*"))


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
        import resource, signal
        from contextlib import closing
        from pathlib import Path
        from raster.convert import convert
        from raster.image import ImageRef, open_image
        from foveate.errors import DiskFull
        ref = ImageRef(Path({str(DATA / "photos/Landscape_6.jpg")!r}))
        with closing(open_image(ref)) as image:
            info = image.info
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            convert(ref, info, Path({str(tmp_path / "copy.tif")!r}), lambda _: None)
        except DiskFull as error:
            print("full:", error.message)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert run.stdout.startswith("full: copy.tif"), run.stderr
    assert list(tmp_path.iterdir()) == []


def level(width: int, height: int, tile: tuple[int, int], downsample: float = 1.0) -> LevelInfo:
    return LevelInfo(width=width, height=height, downsample=(downsample, downsample), tile=tile)


@pytest.mark.parametrize(
    ("levels", "driver", "reason"),
    [
        ([level(3000, 3000, (3000, 1))], "GTiff", None),
        ([level(5000, 5000, (5000, 1))], "GTiff", "strips"),
        ([level(5000, 5000, (256, 256))], "GTiff", None),
        ([level(5000, 5000, (256, 256))], "JPEG", "first row"),
        ([level(9000, 9000, (256, 256))], "GTiff", "no coarser levels"),
        ([level(9000, 9000, (4096, 4096))], "GTiff", "too large"),
        ([level(9000, 9000, (256, 256)), level(2250, 2250, (256, 256), 4)], "GTiff", None),
        ([level(9000, 9000, (256, 256)), level(1000, 1000, (256, 256), 9)], "GTiff", "lacks levels"),
        ([level(90000, 90000, (256, 256)), level(45000, 45000, (256, 256), 2)], "GTiff", "coarsest level"),
    ],
)
def test_only_what_breaks_the_memory_or_the_speed_is_converted(
    levels: list[LevelInfo], driver: str, reason: str | None
) -> None:
    info = make_info(width=levels[0].width, height=levels[0].height, levels=levels, driver=driver)
    found = needs_conversion(info)
    assert found is None if reason is None else found is not None and reason in found

"""The chunked source: the same pixel whoever asks, each chunk decoded once, damage where it is."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import raster.source
from foveate.errors import ImageDamaged, ImageUnreadable
from raster.array import ArrayImage
from raster.geometry import Region
from raster.resample import resample
from raster.source import Plane, Source, check_damage

FILL = np.array([10, 20, 30], np.uint8)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def halved(array):
    return resample(
        array,
        Region(0, 0, array.shape[1], array.shape[0]),
        (0, 0, array.shape[1], array.shape[0]),
        Region(0, 0, array.shape[1] // 2, array.shape[0] // 2).size,
    )


def open_source(image, memory=1 << 26, convert=lambda values: values):
    return Source(lambda: image, convert, FILL, memory)


def test_level_0_is_read_as_it_is_and_the_outside_is_fill():
    pixels = noise(700, 900)
    sample = open_source(ArrayImage.of([pixels])).read(Plane((1.0, 1.0)), Region(-5, 690, 20, 20))
    assert (sample.values[:10, 5:] == pixels[690:, :15]).all()
    assert (sample.values[10:] == FILL).all()
    assert (sample.values[:, :5] == FILL).all()
    assert sample.valid is not None
    assert sample.valid[:10, 5:].all()
    assert not sample.valid[10:].any()


@pytest.mark.parametrize("scale", [1.0, 1.06, 2.0, 2.7, 0.37, 7.9, 23.0])
def test_a_pixel_does_not_depend_on_who_asks_for_it(scale):
    source = open_source(ArrayImage.of([noise(600, 620)]))
    plane = Plane((scale, scale), (-3.5, 2.25))
    side = int(500 / scale)
    whole = source.read(plane, Region(-2, -2, side, side)).values
    again = open_source(ArrayImage.of([noise(600, 620)]), memory=1)
    for region in (Region(3, 5, 9, 7), Region(side // 2, side // 3, 4, 5)):
        part = again.read(plane, region).values
        assert (part == whole[region.slices(-2, -2)]).all()


@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_a_coarser_level_stands_in_for_the_mean_of_a_finer_one(scale):
    pixels = noise(512, 768)
    levels = [pixels, halved(pixels), halved(halved(pixels))]
    plain = open_source(ArrayImage.of([pixels])).read(Plane((scale, scale)), Region(7, 9, 50, 40)).values
    from_level = open_source(ArrayImage.of(levels)).read(Plane((scale, scale)), Region(7, 9, 50, 40)).values
    assert np.abs(plain.astype(int) - from_level).max() <= 1


def test_the_nearest_finer_level_is_chosen_with_two_percent_of_tolerance():
    source = open_source(ArrayImage.of([noise(400, 400), noise(200, 199), noise(100, 100)]))
    assert source.level_for((1.99, 1.99)) == 1
    assert source.level_for((1.9, 1.9)) == 0
    assert source.level_for((3.99, 3.99)) == 2
    assert source.level_for((0.4, 0.4)) == 0


def test_no_data_takes_the_fill_colour_before_resampling():
    pixels = np.full((64, 64, 3), 255, np.uint8)
    valid = np.ones((64, 64), bool)
    valid[:, 32:] = False
    source = open_source(ArrayImage.of([pixels], [valid]))
    sample = source.read(Plane((2.0, 2.0)), Region(0, 0, 32, 32))
    assert (sample.values[:, 16:] == FILL).all()
    assert (sample.values[:, :16] == 255).all()
    assert sample.valid is not None
    assert sample.valid.mean() == 0.5


class Counting(ArrayImage):
    """Counts the pixels that were asked for, from any thread."""

    def __init__(self, *args):
        super().__init__(*args)
        self.read_pixels = 0
        self.lock = threading.Lock()

    def read(self, level, region):
        with self.lock:
            self.read_pixels += region.size.area
        return super().read(level, region)


def test_many_threads_decode_each_chunk_once():
    image = Counting.of([noise(1100, 1300)])
    source = open_source(image)
    regions = [Region(x, y, 256, 256) for y in range(0, 1000, 90) for x in range(0, 1200, 90)]
    with ThreadPoolExecutor(8) as executor:
        samples = list(executor.map(lambda region: source.read(Plane((2.0, 2.0)), region), regions))
    assert image.read_pixels == 1100 * 1300
    assert source.take_pixels_decoded() == 1100 * 1300
    assert source.take_pixels_decoded() == 0
    plain = open_source(ArrayImage.of([noise(1100, 1300)]), memory=1)
    assert all(
        (sample.values == plain.read(Plane((2.0, 2.0)), region).values).all()
        for sample, region in list(zip(samples, regions, strict=True))[::17]
    )


class Sparse(ArrayImage):
    """Stores nothing from row 512 on."""

    def read(self, level, region):
        stored = region.intersection(Region(0, 0, 10_000, 512)).size.area
        return replace(super().read(level, region), decoded=stored)


def test_only_what_a_codec_delivered_counts_as_decoded():
    source = open_source(Sparse.of([noise(1100, 1300)]))
    source.read(Plane((1.0, 1.0)), Region(0, 0, 1300, 1100))
    assert source.take_pixels_decoded() == 512 * 1300


class Damaged(ArrayImage):
    """Cannot decode the tiles that `bad` (level-0 points) lie in."""

    bad = ()

    def read(self, level, region):
        if level == 0 and any(region.x <= x < region.x1 and region.y <= y < region.y1 for x, y in self.bad):
            raise ImageUnreadable("bad tile", hint="none")
        return super().read(level, region)


def test_a_damaged_tile_is_filled_and_named_and_its_neighbours_are_read():
    pixels = noise(256 * 12, 256 * 12)
    image = Damaged.of([pixels])
    image.bad = ((300, 300),)
    sample = open_source(image).read(Plane((1.0, 1.0)), Region(200, 200, 400, 400))
    assert sample.damaged == {Region(256, 256, 256, 256)}
    assert (sample.values[56:312, 56:312] == FILL).all()
    assert (sample.values[:56] == pixels[200:256, 200:600]).all()


def test_more_than_one_percent_of_damage_is_an_error_that_names_the_place():
    image = Damaged.of([noise(256 * 3, 256 * 3)])
    image.bad = ((300, 300),)
    with pytest.raises(ImageDamaged, match=r"1 of 9 tiles.*\(256, 256\)"):
        open_source(image).read(Plane((1.0, 1.0)), Region(0, 0, 700, 700))


def test_damage_of_several_levels_in_one_place_counts_once():
    info = ArrayImage.of([noise(256 * 20, 256 * 10)]).info
    tile, above = Region(256, 256, 256, 256), Region(0, 0, 512, 512)
    check_damage([tile], info, "?")
    with pytest.raises(ImageDamaged, match="covers 4 of 200 tiles"):
        check_damage([above, tile], info, "?")


def test_whatever_a_reader_raises_reaches_every_thread_and_can_be_tried_again():
    class Fails(ArrayImage):
        calls = 0

        def read(self, level, region):
            Fails.calls += 1
            raise OSError("gone")

    source = open_source(Fails.of([noise(30, 30)]))
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            source.read(Plane((1.0, 1.0)), Region(0, 0, 10, 10))
    assert Fails.calls == 2


def test_released_chunks_are_read_again_and_kept_ones_are_not():
    image = Counting.of([noise(1024, 1024)])
    source = open_source(image)
    plane, left, right = Plane((1.0, 1.0)), Region(0, 0, 512, 1024), Region(512, 0, 512, 1024)
    before = source.read(plane, Region(0, 0, 1024, 1024)).values
    source.release({0: left}, {})
    assert (source.read(plane, left).values == before[:, :512]).all()
    assert image.read_pixels == 1024 * 1024
    assert (source.read(plane, right).values == before[:, 512:]).all()
    assert image.read_pixels == 1024 * 1536


@pytest.mark.parametrize("scale", [1.0, 1.06, 2.7, 7.9, 23.0])
@pytest.mark.parametrize("origin", [(0.0, 0.0), (-3.5, 2.25)])
@pytest.mark.parametrize("once", [False, True])
def test_the_reach_of_a_region_holds_whatever_is_read_for_it(scale, origin, once):
    image = Counting.of([noise(2000, 2100), noise(1001, 1049)])
    source = open_source(image)
    plane, region = Plane((scale, scale), origin), Region(5, 9, 40, 30)
    read = source.read_once if once else source.read
    read(plane, region)
    decoded = image.read_pixels
    source.release({}, source.reach(plane, region, once=once))
    read(plane, region)
    assert image.read_pixels == decoded


@pytest.mark.parametrize("scale", [1.5, 9.0, 64.0, 100.0])
def test_no_more_is_resampled_than_what_may_see_the_image(monkeypatch, scale):
    pixels, made = noise(600, 620), []

    def counted(values, origin, box, size):
        made.append(size.area)
        return resample(values, origin, box, size)

    monkeypatch.setattr(raster.source, "resample", counted)
    plane = Plane((scale, scale), (-130.0, -70.0))
    sample = open_source(ArrayImage.of([pixels])).read(plane, Region(-50, -50, 1000, 1000))
    inside = 600 * 620 / scale**2
    # Values and validity each: fewer pixels than the image has, halved planes and all.
    assert sum(made) <= 2 * 600 * 620
    assert sample.values.shape == (1000, 1000, 3)
    assert (sample.values[0] == FILL).all()
    assert sample.valid is not None
    assert sample.valid.sum() == pytest.approx(inside, rel=0.02)


@pytest.mark.parametrize("full", [False, True])
def test_what_does_not_fit_is_put_aside_and_not_decoded_again(tmp_path, monkeypatch, full):
    """Rows of blocks on a wide image, each of which needs the last rows of the one above; memory is for one block."""
    if full:
        monkeypatch.setattr("os.pwrite", lambda *arguments: 0)
    pixels = noise(2048, 2048)
    image = Counting.of([pixels])
    source = Source(lambda: image, lambda values: values, FILL, 4 * 256 * 256 * 3, tmp_path)
    plane, rows = Plane((1.0, 1.0)), [Region(0, y, 2048, 400) for y in range(0, 1600, 300)]
    for row, below in zip(rows, [*rows[1:], None], strict=True):
        for x in range(0, 2048, 256):
            part = Region(x, row.y, min(300, 2048 - x), 400)
            assert (source.read(plane, part).values == pixels[part.slices()]).all()
            rest = Region.between(x + 256, row.y, 2048, row.y1)
            source.release({0: rest}, {} if below is None else {0: below})
    assert (image.read_pixels == 2048 * 2048) != full
    source.close()
    assert list(tmp_path.iterdir()) == []


def test_little_is_put_aside_before_it_is_known_what_is_of_use(tmp_path, monkeypatch):
    """A small image whose first look reads all of it is decoded once; of a large one the rest is decoded again."""
    for most, decoded in ((1 << 30, 1), (8 * 256 * 256 * 3, 1.5)):
        monkeypatch.setattr("raster.cache._UNSETTLED_BYTES", most)
        image = Counting.of([noise(1024, 1024)])
        source = Source(lambda image=image: image, lambda values: values, FILL, 2 * 256 * 256 * 3, tmp_path)
        for _ in range(2):
            source.read(Plane((1.0, 1.0)), Region(0, 0, 1024, 1024))
        source.close()
        assert image.read_pixels / 1024**2 == pytest.approx(decoded, abs=0.3 if decoded > 1 else 0)

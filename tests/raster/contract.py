"""What every reader promises; a reader's tests inherit this class and give it an image to open."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from raster.geometry import Region
from raster.image import ImageRef, Pixels, RasterImage, open_image
from raster.levels import trusted_levels

_REGIONS = 12


class ReaderContract:
    """Subclasses override `opened`, or only set `reader` and `path`."""

    reader: str
    path: Path

    def opened(self) -> RasterImage:
        return open_image(ImageRef(self.path))

    @pytest.fixture
    def image(self) -> Iterator[RasterImage]:
        with closing(self.opened()) as image:
            yield image

    def test_is_read_by_the_reader_it_should_be(self, image: RasterImage) -> None:
        assert image.info.reader == self.reader

    def test_any_region_is_the_crop_of_the_whole(self, image: RasterImage) -> None:
        rng = np.random.default_rng(7)
        for level, said in enumerate(image.info.levels):
            whole = image.read(level, Region(0, 0, said.width, said.height))
            for _ in range(_REGIONS):
                x0, x1 = sorted(rng.integers(0, said.width, 2))
                y0, y1 = sorted(rng.integers(0, said.height, 2))
                region = Region.between(int(x0), int(y0), int(x1) + 1, int(y1) + 1)
                same(image.read(level, region), crop(whole, region))

    def test_far_corner_is_one_pixel(self, image: RasterImage) -> None:
        for level, said in enumerate(image.info.levels):
            pixels = image.read(level, Region(said.width - 1, said.height - 1, 1, 1))
            assert pixels.values.shape == (1, 1, len(image.info.bands))

    def test_info_says_what_is_read(self, image: RasterImage) -> None:
        info = image.info
        pixels = image.read(0, Region(0, 0, 1, 1))
        assert pixels.values.dtype == info.dtype
        assert (pixels.valid is None) == (info.validity == "none")
        assert (info.levels[0].width, info.levels[0].height) == (info.width, info.height)
        for level in info.levels:
            assert level.downsample == pytest.approx((info.width / level.width, info.height / level.height))
        assert info.levels == sorted(info.levels, key=lambda one: -one.width * one.height)

    def test_levels_show_one_picture(self, image: RasterImage) -> None:
        info = image.info
        places = [(info.width * i // 4, info.height * j // 4) for i in (1, 2, 3) for j in (1, 2, 3)]
        assert trusted_levels(image, places) == len(info.levels)

    def test_another_handle_in_another_thread_reads_the_same(self, image: RasterImage) -> None:
        region = Region(0, 0, min(image.info.width, 300), min(image.info.height, 300))
        answers: list[Pixels] = []

        def read() -> None:
            with closing(self.opened()) as other:
                answers.append(other.read(0, region))

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 3
        for answer in answers:
            same(answer, image.read(0, region))

    def test_validity_alone_is_that_of_the_pixels(self, image: RasterImage) -> None:
        for level, said in enumerate(image.info.levels):
            region = Region(said.width // 3, said.height // 3, -(-said.width // 2), -(-said.height // 2))
            valid, alone = image.read(level, region).valid, image.read_valid(level, region)
            assert (valid is None) == (alone is None)
            if valid is not None:
                np.testing.assert_array_equal(valid, alone)

    def test_closes_twice(self, image: RasterImage) -> None:
        image.close()
        image.close()


def crop(whole: Pixels, region: Region) -> Pixels:
    return Pixels(whole.values[region.slices()], None if whole.valid is None else whole.valid[region.slices()])


def same(a: Pixels, b: Pixels) -> None:
    np.testing.assert_array_equal(a.values, b.values)
    assert (a.valid is None) == (b.valid is None)
    if a.valid is not None:
        np.testing.assert_array_equal(a.valid, b.valid)


def whole(image: RasterImage, level: int = 0) -> Pixels:
    said = image.info.levels[level]
    return image.read(level, Region(0, 0, said.width, said.height))

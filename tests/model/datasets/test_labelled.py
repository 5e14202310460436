"""Windows of labelled images: pixels as inference reads them, labels by majority or at centres, what is held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.datasets.classes import IGNORE
from model.datasets.labelled import LabelledImage, open_labelled
from model.datasets.layouts import find_pairs
from raster.bands import fill_colour
from raster.geometry import Region, Size
from raster.image import ImageRef, open_image
from raster.source import Plane, Source
from tests.model.datasets.scenes import card, pairs_data, write_scene
from tests.shared import DATA

AERIAL = DATA / "aerial/dubai"
CARD = card()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabelledImage, NDArray[np.uint8], NDArray[np.uint8]]:
    folder = tmp_path_factory.mktemp("scene")
    pixels, classes = write_scene(folder)
    data = pairs_data(folder)
    return open_labelled(find_pairs(data, "test")[0], data, CARD), pixels, classes


def padded(values: NDArray[np.uint8], fill: int) -> NDArray[np.uint8]:
    margins = [(200, 200), (200, 200), (0, 0)][: values.ndim]
    return np.pad(values, margins, constant_values=fill)


@given(st.integers(-40, 90), st.integers(-40, 90), st.sampled_from([1, 2, 4]))
def test_pixels_are_means_of_what_they_cover_and_fill_outside(scene, x: int, y: int, step: int) -> None:  # type: ignore[no-untyped-def]
    image, pixels, _ = scene
    seen = image.pixels(Region(x, y, 16 * step, 16 * step), Size(16, 16))
    window = padded(pixels, 128)[200 + y : 200 + y + 16 * step, 200 + x : 200 + x + 16 * step]
    expected = window.reshape(16, step, 16, step, 3).mean((1, 3))
    assert seen.dtype == np.uint8 and np.abs(seen - expected).max() <= 0.5 + 1e-9


@given(st.integers(-40, 90), st.integers(-40, 90), st.sampled_from([1, 2, 4, 8]))
def test_labels_are_the_majority_of_what_they_cover(scene, x: int, y: int, step: int) -> None:  # type: ignore[no-untyped-def]
    image, _, classes = scene
    seen = image.labels(Region(x, y, 16 * step, 16 * step), Size(16, 16))
    window = padded(classes, IGNORE)[200 + y : 200 + y + 16 * step, 200 + x : 200 + x + 16 * step]
    cells = window.reshape(16, step, 16, step)
    counts = np.stack([(cells == k).sum((1, 3)) for k in range(3)])
    expected = np.where(2 * counts.sum(0) < step * step, IGNORE, counts.argmax(0))
    assert np.array_equal(seen, expected)


@given(st.integers(-20, 60), st.integers(-20, 60), st.integers(5, 90), st.integers(3, 40))
def test_labels_at_broken_ratios_are_those_at_the_centres(scene, x: int, y: int, side: int, size: int) -> None:  # type: ignore[no-untyped-def]
    image, _, classes = scene
    if side % size == 0:
        return
    seen = image.labels(Region(x, y, side, side), Size(size, size))
    index = 200 + np.floor((np.arange(size) + 0.5) * side / size).astype(int)
    assert np.array_equal(seen, padded(classes, IGNORE)[np.ix_(index + y, index + x)])


@pytest.mark.parametrize(("side", "step"), [(64, 1), (64, 2), (64, 4), (32, 16)])
def test_training_sees_what_inference_reads(side: int, step: int) -> None:
    patterns = {"images": "tile_2/images/image_part_005.jpg", "labels": "tile_2/masks/image_part_005.png"}
    rules = [{"low": 0, "high": 5, "value": 0}]
    data = pairs_data(AERIAL, train=[patterns], test=[patterns], labels=rules)
    image = open_labelled(find_pairs(data, "test")[0], data, CARD)
    path = AERIAL / "tile_2/images/image_part_005.jpg"
    source = Source(lambda: open_image(ImageRef(path)), lambda values: values, fill_colour(CARD.input), 1 << 26)
    region = Region(-side // 2, -side // 4, side, side)
    window = Region(region.x * step, region.y * step, side * step, side * step)
    assert np.array_equal(image.pixels(window, region.size), source.read(Plane((step, step)), region).values)
    hanging = image.pixels(Region(0, 0, 16 * 32, 18 * 32), Size(16, 18))
    assert np.array_equal(hanging, source.read(Plane((32, 32)), Region(0, 0, 16, 18)).values)
    source.close()
    image.close()

"""Windows of labelled images: pixels as inference reads them, labels by majority or at centres, what is held out."""

import contextlib
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from rasterio.windows import Window

from foveate.errors import BandsMismatch, OptionInvalid, SpacingMismatch
from model.datasets.classes import IGNORE
from model.datasets.config import Glass, Holdout
from model.datasets.labelled import LabelledImage, class_shares, open_labelled
from model.datasets.layouts import find_pairs
from model.datasets.pair import Split
from raster.bands import fill_colour
from raster.geometry import Region, Size
from raster.image import ImageRef, open_image
from raster.source import Plane, Source
from tests.model.datasets.scenes import card, pairs_data, save, write_scene
from tests.shared import DATA

AERIAL = DATA / "aerial/dubai"
SLIDE = DATA / "slides/CMU-1-Small-Region.svs"
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


def opened(folder: Path, index: int = 0, split: Split = "train", **changes: Any) -> LabelledImage:
    data = pairs_data(folder, **changes)
    return open_labelled(find_pairs(data, split)[index], data, CARD)


def whole(image: LabelledImage) -> NDArray[np.uint8]:
    return image.labels(Region.of(image.size), image.size)


def test_a_mosaic_is_put_together_row_by_row(tmp_path: Path) -> None:
    pixels, classes = write_scene(tmp_path / "whole", width=60, height=40)
    for k in range(6):
        row, column = divmod(k, 3)
        part = np.s_[row * 20 : row * 20 + 20, column * 20 : column * 20 + 20]
        save(tmp_path / f"images/{k}.png", pixels[part])
        save(tmp_path / f"labels/{k}.png", classes[part])
    scenes = [{"images": "images/*.png", "labels": "labels/*.png", "mosaic": (3, 2)}]
    image = opened(tmp_path, train=scenes)
    assert image.size == Size(60, 40)
    assert np.array_equal(image.pixels(Region(0, 0, 60, 40), Size(60, 40)), pixels)
    assert np.array_equal(whole(image), classes)


def test_classes_are_channels_whatever_values_the_card_gives_them(tmp_path: Path) -> None:
    _, classes = write_scene(tmp_path)
    rules = [{"low": k, "high": k, "value": value} for k, value in enumerate((20, 30, 10))]
    data = pairs_data(tmp_path, labels=rules)
    pair = find_pairs(data, "test")[0]
    with contextlib.closing(open_labelled(pair, data, card((10, 20, 30)))) as image:
        assert np.array_equal(whole(image), np.array([1, 2, 0])[classes])
        assert image.present == [0, 1, 2]
        assert image.class_counts(3).tolist() == np.roll(np.bincount(classes.ravel()), 1).tolist()
    with contextlib.closing(open_labelled(pair, data, card((10, 20)))) as image, pytest.raises(OptionInvalid) as caught:
        whole(image)
    assert "class 30, which tiny does not know" in caught.value.message


def test_held_corners_turn_from_image_to_image_and_are_not_learnt(tmp_path: Path) -> None:
    for name in "abc":
        write_scene(tmp_path, name, 80, 64)
    images = [opened(tmp_path, k, holdout=Holdout(kind="corner", part=2)) for k in range(3)]
    assert [image.held for image in images] == [Region(0, 0, 40, 32), Region(40, 0, 40, 32), Region(40, 32, 40, 32)]
    window = Region(30, -10, 40, 60)
    learnable = images[1].learnable(window, Size(20, 30))
    labels = images[1].labels(window, Size(20, 30))
    assert (learnable[5:21, 5:] == IGNORE).all() and np.array_equal(learnable[21:], labels[21:])
    assert opened(tmp_path, 1, "test", holdout=Holdout(kind="corner", part=2)).held.empty


def test_what_touches_the_held_part_is_not_learnt_at_any_scale(tmp_path: Path) -> None:
    write_scene(tmp_path)
    image = opened(tmp_path, holdout=Holdout(kind="corner", part=3))  # 26 x 21 px
    learnable = image.learnable(Region(0, 0, 80, 64), Size(10, 8))
    assert (
        (learnable[:3, :4] == IGNORE).all() and (learnable[3:] != IGNORE).all() and (learnable[:, 4:] != IGNORE).all()
    )


def test_every_nth_image_can_be_held_whole(tmp_path: Path) -> None:
    write_scene(tmp_path, "a", seed=1)
    write_scene(tmp_path, "b", seed=2)
    images = [opened(tmp_path, k, holdout=Holdout(kind="image", part=2)) for k in range(2)]
    assert [image.held.empty for image in images] == [True, False]
    assert images[1].present == [] and len(images[1].places(0, 5, np.random.default_rng(0))) == 0
    assert class_shares(images, 3) == class_shares(images[:1], 3)
    with pytest.raises(OptionInvalid, match="no pixel"):
        class_shares(images[1:], 3)


def test_shares_and_places_follow_the_labels(tmp_path: Path) -> None:
    _, classes = write_scene(tmp_path)
    image = opened(tmp_path)
    counts = np.bincount(classes.ravel(), minlength=3)
    assert class_shares([image], 3) == pytest.approx(counts / counts.sum())
    random = np.random.default_rng(0)
    for klass in image.present:
        x, y = np.floor(image.places(klass, 50, random)).astype(int).T
        assert (classes[y, x] == klass).all() and len(set(zip(x, y, strict=True))) > 10


def test_glass_does_not_depend_on_the_window(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    smooth = np.kron(random.integers(180, 256, (12, 15)), np.ones((8, 8)))
    pixels = np.repeat((smooth + random.integers(-8, 1, smooth.shape)).clip(0, 255)[..., None], 3, axis=2)
    save(tmp_path / "images/0.png", pixels.astype(np.uint8))
    classes = np.zeros((96, 120), np.uint8)
    classes[40:] = 1
    save(tmp_path / "labels/0.png", classes)
    glass = Glass(within=0, value=2, brightness=215, chroma=25, radius=5)
    found = whole(opened(tmp_path, glass=glass))
    assert (found[40:] == 1).all() and {0, 2} == set(np.unique(found[:40]))
    padded_pixels = np.pad(pixels[..., 0], 5, mode="edge")
    means = np.lib.stride_tricks.sliding_window_view(padded_pixels, (11, 11)).mean((2, 3))
    assert np.array_equal(found[:40] == 2, means[:40] >= 215)
    part = opened(tmp_path, glass=glass).labels(Region(33, 7, 50, 40), Size(50, 40))
    assert np.array_equal(part, found[7:47, 33:83])


def test_the_working_grid_maps_image_and_labels_alike(tmp_path: Path) -> None:
    """At half the spacing a working pixel is 2 x 2 of level 0; at two thirds the class at its centre counts."""
    pixels, classes = write_scene(tmp_path)
    spaced = card(kind="any", spacing=0.5, spacing_unit="um", spacing_range=[0.1, 1.0])
    data = pairs_data(tmp_path, spacing=0.25)
    image = open_labelled(find_pairs(data, "test")[0], data, spaced)
    assert image.size == Size(40, 32)
    assert np.array_equal(whole(image), classes[::2, ::2])
    halved = pixels.reshape(32, 2, 40, 2, 3).mean((1, 3))
    assert np.abs(image.pixels(Region(0, 0, 40, 32), Size(40, 32)) - halved).max() <= 0.5 + 1e-9
    data = pairs_data(tmp_path, spacing=0.4)
    image = open_labelled(find_pairs(data, "test")[0], data, spaced)
    assert image.size == Size(64, 52)
    centres = np.floor((np.arange(64) + 0.5) * 1.25).astype(int)
    assert np.array_equal(whole(image)[:51], classes[np.ix_(centres[:51], centres)])


def test_a_spacing_that_nobody_knows_is_refused_in_the_words_of_a_recipe(tmp_path: Path) -> None:
    write_scene(tmp_path)
    data = pairs_data(tmp_path)
    spaced = card(spacing=0.5, spacing_unit="um", spacing_range=[0.1, 1.0])
    with pytest.raises(SpacingMismatch) as caught:
        open_labelled(find_pairs(data, "test")[0], data, spaced)
    assert "data.spacing" in caught.value.hint and "--" not in caught.value.hint


def test_bands_and_rescale_of_a_recipe_reach_the_image(tmp_path: Path) -> None:
    grey = np.arange(80, dtype=np.uint16).reshape(8, 10) * 500
    save(tmp_path / "images/0.png", grey)
    save(tmp_path / "labels/0.png", np.zeros((8, 10), np.uint8))
    image = opened(tmp_path, bands=[1, 1, 1], rescale=(0, 40_000))
    shown = image.pixels(Region(0, 0, 10, 8), Size(10, 8))
    expected = np.floor(grey.astype(float) * 255 / 40_000 + 0.5)
    assert np.array_equal(shown, np.repeat(expected[..., None], 3, axis=2))
    with pytest.raises(BandsMismatch) as caught:
        opened(tmp_path)
    assert "data.bands" in caught.value.hint and "data.rescale" in caught.value.hint


def test_pixels_without_data_are_not_labelled(tmp_path: Path) -> None:
    pixels = np.full((8, 10, 4), 200, np.uint8)
    pixels[:, 6:, 3] = 0
    save(tmp_path / "images/0.png", pixels)
    save(tmp_path / "labels/0.png", np.ones((8, 10), np.uint8))
    image = opened(tmp_path)
    assert (whole(image)[:, :6] == 1).all() and (whole(image)[:, 6:] == IGNORE).all()
    assert (image.pixels(Region(0, 0, 10, 8), Size(10, 8))[:, 6:] == 128).all()


def test_pairs_travel_to_other_processes(tmp_path: Path) -> None:
    write_scene(tmp_path)
    pair = find_pairs(pairs_data(tmp_path), "train")[0]
    assert pickle.loads(pickle.dumps(pair)) == pair


def test_a_large_window_is_read_in_pieces(tmp_path: Path) -> None:
    """A thumbnail of 36 Mpx takes a small part of the memory that the image would."""
    path = tmp_path / "images/0.tif"
    path.parent.mkdir(parents=True)
    profile = {"width": 6000, "height": 6000, "count": 3, "dtype": "uint8", "transform": rasterio.Affine.scale(2, -2)}
    with rasterio.open(path, "w", "GTiff", **profile, tiled=True, compress="deflate", photometric="RGB") as file:
        for row in range(0, 6000, 1000):
            file.write(np.full((3, 1000, 6000), row // 40, np.uint8), window=Window(0, row, 6000, 1000))
    save(tmp_path / "labels/0.png", np.zeros((6000, 6000), np.uint8))
    scenes = [{"images": "images/*.tif", "labels": "labels/*.png"}]
    data = pairs_data(tmp_path, train=scenes)
    image = open_labelled(find_pairs(data, "train")[0], data, CARD, memory_bytes=4_000_000)
    tracemalloc.start()
    thumbnail = image.thumbnail(Size(750, 750))
    coarse = image.present
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert coarse == [0] and (thumbnail[:125] == 0).all() and (thumbnail[-125:] == 125).all()
    assert peak < 60_000_000


def test_the_last_thumbnail_is_kept(scene) -> None:  # type: ignore[no-untyped-def]
    image, _, _ = scene
    first = image.thumbnail(Size(20, 16))
    assert image.thumbnail(Size(20, 16)) is first
    assert image.thumbnail(Size(10, 8)).shape == (8, 10, 3)
    rounded = image.pixels(Region(0, 0, 80, 64), Size(20, 16))
    np.testing.assert_allclose(image.thumbnail(Size(20, 16)), rounded, atol=0.501)


def test_touching_objects_are_kept_apart_where_they_are_learnt(tmp_path: Path) -> None:
    numbers = np.zeros((40, 60), np.uint8)
    numbers[5:35, 5:30], numbers[5:20, 30:55], numbers[24:35, 36:55] = 3, 7, 9
    save(tmp_path / "images/0.png", np.zeros((40, 60, 3), np.uint8))
    save(tmp_path / "labels/0.png", numbers)
    rules = [{"low": 0, "high": 0, "value": 0}, {"low": 1, "high": 255, "value": 1}]
    fields: dict[str, Any] = {"labels": rules, "objects": 1, "gap": 5, "gap_value": 2}
    expected = (numbers > 0).astype(np.uint8)
    for row, column in np.argwhere(numbers > 0):
        near = numbers[max(0, row - 5) : row + 6, max(0, column - 5) : column + 6]
        if len(set(near[near > 0].tolist())) > 1:
            expected[row, column] = 2
    learnt = opened(tmp_path, **fields)
    assert np.array_equal(whole(learnt), expected) and {0, 1, 2} == set(np.unique(expected))
    part = learnt.labels(Region(28, 17, 9, 8), Size(9, 8))
    assert np.array_equal(part, expected[17:25, 28:37])
    assert np.array_equal(whole(opened(tmp_path, split="test", **fields)), numbers > 0)
    objects = learnt.objects()
    assert objects is not None and np.array_equal(objects, numbers)


@pytest.mark.parametrize("fields", [{"gap": 2, "objects": 1}, {"gap": 2, "gap_value": 0}])
def test_a_gap_needs_objects_and_a_class(tmp_path: Path, fields: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="gap needs"):
        pairs_data(tmp_path, **fields)


@pytest.mark.parametrize("fov", [64, 96, 128])
def test_a_working_grid_of_any_ratio_is_read_as_inference_reads_it(tmp_path: Path, fov: int) -> None:
    """The lattice's planes of `worker.batches`, on a slide whose grid is not the bundle's, but for rounding."""
    P, stride = 64, 48
    spaced = card(kind="slide", spacing=0.62, spacing_unit="um", spacing_range=[0.1, 2.0])
    scene = {"images": SLIDE.name, "labels": SLIDE.name}
    data = pairs_data(SLIDE.parent, train=[scene], test=[scene])
    label = save(tmp_path / "label.png", np.zeros((2967, 2220), np.uint8))
    pair = replace(find_pairs(data, "test")[0], labels=(label,))
    image = open_labelled(pair, data, spaced)
    source = Source(lambda: open_image(ImageRef(SLIDE)), lambda values: values, fill_colour(spaced.input), 1 << 26)
    assert source.info.spacing is not None
    rx, ry = 0.62 / source.info.spacing.x, 0.62 / source.info.spacing.y
    plane = Plane((fov / P * rx, fov / P * ry), ((P - fov) / 2 * rx, (P - fov) / 2 * ry))
    for column, row in [(0, 0), (7, 11), (20, 31)]:
        cell = Region(column * stride, row * stride, P, P)
        window = Region(cell.x + (P - fov) // 2, cell.y + (P - fov) // 2, fov, fov)
        seen = image.pixels(window, Size(P, P)).astype(int)
        inference = source.read(plane, Region(cell.x * P // fov, cell.y * P // fov, P, P)).values
        assert np.abs(seen - inference).max() <= 1 and (seen != inference).mean() < 5e-3
    source.close()
    image.close()

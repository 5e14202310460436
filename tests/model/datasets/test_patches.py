"""Labelled patches: reading and mapping of labels, what is held out, and patches at every field of view."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foveate.errors import FoveateError, ImageMissing, OptionInvalid
from model.datasets.patches import (
    IGNORE,
    PatchSampler,
    class_shares,
    labels_at,
    load_images,
    mean_colour,
    normalised,
    patch_at,
    read_pixels,
    thumbnail,
    turned,
)
from model.training.config import Glass, Holdout, TrainConfig
from raster.geometry import Region
from raster.image import ImageRef, open_image
from raster.source import Plane, Source
from tests.model.training.recipes import PATCH, UNLABELLED, recipe, write_pictures
from tests.shared import DATA

AERIAL = DATA / "aerial" / "dubai"
FILL = np.array([128, 128, 128], np.uint8)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    write_pictures(tmp_path)
    return TrainConfig.model_validate(recipe(tmp_path))


def test_a_mosaic_is_put_together_row_by_row(tmp_path: Path, config: TrainConfig) -> None:
    whole = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    (tmp_path / "parts").mkdir()
    for k in range(6):
        row, column = divmod(k, 3)
        part = np.s_[row * 20 : row * 20 + 20, column * 20 : column * 20 + 20]
        Image.fromarray(whole[part]).save(tmp_path / f"parts/{k}.png")
        Image.fromarray(whole[part][..., 0] // 128).save(tmp_path / f"parts/{k}-label.png")
    data = config.data.model_copy(
        update={"train": [scene(images="parts/?.png", labels="parts/*-label.png", mosaic=(3, 2))]}
    )
    (image,) = load_images(data, data.train, None)
    assert np.array_equal(image.pixels, whole)
    assert np.array_equal(image.labels, whole[..., 0] // 128)


def scene(**fields: Any) -> Any:
    from model.training.config import Scenes

    return Scenes.model_validate(fields)


def test_palette_labels_are_read_as_numbers() -> None:
    from raster.labels import read_labels

    labels = read_labels(AERIAL / "tile_2/masks/image_part_001.png")
    assert labels.dtype == np.uint8 and set(np.unique(labels)) <= set(range(6))


def test_unmapped_labels_are_refused_by_value(tmp_path: Path, config: TrainConfig) -> None:
    data = config.data.model_copy(update={"labels": config.data.labels[:2]})
    with pytest.raises(OptionInvalid, match=f"label {UNLABELLED} "):
        load_images(data, data.train, None)


@pytest.mark.parametrize(
    ("pattern", "error"), [({"images": "none/*"}, ImageMissing), ({"images": "images/0.png"}, OptionInvalid)]
)
def test_patterns_that_do_not_pair_are_refused(
    config: TrainConfig, pattern: dict[str, str], error: type[FoveateError]
) -> None:
    data = config.data.model_copy(update={"train": [config.data.train[0].model_copy(update=pattern)]})
    with pytest.raises(error):
        load_images(data, data.train, None)


def test_held_corners_are_not_learnt_and_turn_from_image_to_image(config: TrainConfig) -> None:
    first, second = load_images(config.data, config.data.train, config.data.holdout)
    assert (first.held, second.held) == (Region(0, 0, 80, 80), Region(80, 0, 80, 80))
    assert (first.learnable[first.held.slices()] == IGNORE).all()
    assert (first.labels[8:80, :80] != IGNORE).all()


def test_every_nth_image_can_be_held_whole(config: TrainConfig) -> None:
    images = load_images(config.data, config.data.train, Holdout(kind="image", part=2))
    assert [image.held.empty for image in images] == [True, False]
    assert class_shares(images, 2) == pytest.approx(class_shares(images[:1], 2))


def test_glass_is_bright_colourless_and_outside_other_classes(tmp_path: Path, config: TrainConfig) -> None:
    pixels = np.full((60, 60, 3), (200, 120, 160), np.uint8)
    pixels[:, :30] = 240
    labels = np.zeros((60, 60), np.uint8)
    labels[40:] = 1
    for kind, values in (("images", pixels), ("labels", labels)):
        Image.fromarray(values).save(tmp_path / kind / "0.png")
    glass = Glass(within=0, value=1, brightness=215, chroma=25, radius=2)
    found = load_images(config.data.model_copy(update={"glass": glass}), config.data.train, None)[0].labels
    assert (found[:40, :28] == 1).all() and (found[:40, 32:] == 0).all() and (found[40:] == 1).all()


@given(st.integers(-40, 90), st.integers(-40, 90), st.sampled_from([1, 2, 4]))
def test_a_patch_is_the_mean_of_what_it_covers_and_fill_outside(x: int, y: int, step: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (64, 80, 3), np.uint8)
    side = 16
    patch = patch_at(pixels, Region(x, y, side * step, side * step), side, FILL)
    padded = np.full((64 + 400, 80 + 400, 3), 128.0)
    padded[200:264, 200:280] = pixels
    window = padded[200 + y : 200 + y + side * step, 200 + x : 200 + x + side * step]
    expected = window.reshape(side, step, side, step, 3).mean((1, 3))
    assert np.abs(patch - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("side", "step"), [(64, 1), (64, 2), (64, 4), (32, 16)])
def test_training_sees_what_inference_reads(side: int, step: int) -> None:
    path = AERIAL / "tile_2/images/image_part_005.jpg"
    source = Source(lambda: open_image(ImageRef(path)), lambda values: values, FILL, 1 << 26)
    try:
        region = Region(-side // 2, -side // 4, side, side)
        inference = source.read(Plane((step, step)), region).values
        thumb = source.read(Plane((32, 32)), Region(0, 0, 16, 17)).values
    finally:
        source.close()
    pixels = read_pixels(path)
    window = Region(region.x * step, region.y * step, side * step, side * step)
    assert np.array_equal(patch_at(pixels, window, side, FILL), inference)
    assert np.array_equal(thumbnail(pixels, 32, FILL), thumb)


def test_labels_take_the_majority_and_ignore_what_is_mostly_unlabelled() -> None:
    labels = np.array([[0, 1, 2, 2], [1, 1, 2, 0], [3, 255, 255, 255], [3, 255, 255, 1]], np.uint8)
    assert labels_at(labels, Region(0, 0, 4, 4), 2).tolist() == [[1, 2], [3, IGNORE]]


def test_ties_go_to_the_lower_class_and_the_outside_is_ignored() -> None:
    labels = np.array([[4, 2], [2, 4]], np.uint8)
    assert labels_at(labels, Region(0, 0, 4, 4), 2).tolist() == [[2, IGNORE], [IGNORE, IGNORE]]


def test_labels_at_a_broken_ratio_are_those_at_the_centres() -> None:
    labels = np.tile(np.arange(6, dtype=np.uint8), (6, 1))
    assert labels_at(labels, Region(0, 0, 6, 6), 4)[0].tolist() == [0, 2, 3, 5]


def test_the_thumbnail_hangs_over_the_border() -> None:
    small = thumbnail(np.full((20, 33, 3), 100, np.uint8), 16, FILL)
    assert small.shape == (2, 3, 3)
    assert small[0, 0].tolist() == [100, 100, 100]
    assert small[1, 1].tolist() == [121, 121, 121]  # a quarter is image, the rest fill


def test_normalised_mean_colour_is_zero(config: TrainConfig) -> None:
    colour = mean_colour(config.bundle)
    assert normalised(colour[None, None, None], config.bundle).abs().max() < 0.01


@given(st.integers(0, 3), st.booleans())
def test_image_and_labels_turn_alike(turns: int, mirrored: bool) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    stacked = np.stack([values] * 3, axis=-1)
    assert np.array_equal(turned(stacked, turns, mirrored)[..., 1], turned(values, turns, mirrored))


def test_batches_depend_on_seed_and_step_alone(config: TrainConfig) -> None:
    images = load_images(config.data, config.data.train, config.data.holdout)
    sampler = PatchSampler(images, config.bundle, config.network, config.augmentation, 3)
    again = PatchSampler(images, config.bundle, config.network, config.augmentation, 3)
    for a, b in zip(sampler.batch(7), [again.batch(3), again.batch(7)][1], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(sampler.batch(7)[0], sampler.batch(8)[0])


def test_patches_show_the_colours_of_their_labels(config: TrainConfig) -> None:
    """The picture paints class 1 blue and class 0 red: a shift between patch and labels would break that."""
    images = load_images(config.data, config.data.train, None)
    sampler = PatchSampler(images, config.bundle, config.network, config.augmentation, 3)
    right = labelled = 0
    for step in range(20):
        patches, labels, scales = sampler.batch(step)
        assert patches.shape == (4, 3, PATCH, PATCH) and set(scales.tolist()) <= {1.0, 2.0}
        blue = (patches[:, 2] > patches[:, 0]).long()
        right += int((blue == labels)[labels != IGNORE].sum())
        labelled += int((labels != IGNORE).sum())
    assert labelled > 10_000
    assert right / labelled > 0.97

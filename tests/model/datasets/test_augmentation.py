"""Random changes: turned alike, recoloured within limits, hue and saturation about grey, glass over a part."""

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.datasets.augmentation import Change, draw_change, under_glass
from model.datasets.classes import IGNORE
from model.datasets.config import Augmentation

ALL = Augmentation(right_angles=True, gain=0.2, contrast=0.2, gamma=0.3, saturation=0.4, hue=0.5)
PATCH = np.random.default_rng(0).integers(60, 190, (12, 16, 3), np.uint8)


@given(st.integers(0, 3), st.booleans())
def test_pixels_and_classes_turn_alike(turns: int, mirrored: bool) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    change = Change(turns, mirrored)
    assert np.array_equal(change.turned(np.stack([values] * 3, axis=-1))[..., 1], change.turned(values))
    expected = values
    for _ in range(turns):
        expected = expected.T[::-1]
    assert np.array_equal(change.turned(values), expected[:, ::-1] if mirrored else expected)


def test_nothing_changes_without_limits() -> None:
    for seed in range(8):
        change = draw_change(Augmentation(flip=False), 3, np.random.default_rng(seed))
        assert change.turned(PATCH) is PATCH or np.array_equal(change.turned(PATCH), PATCH)
        assert change.recoloured(PATCH) is PATCH


def test_by_default_half_is_mirrored_and_nothing_else_happens() -> None:
    random = np.random.default_rng(0)
    changes = [draw_change(Augmentation(), 3, random) for _ in range(400)]
    assert {change.turns for change in changes} == {0}
    assert 150 < sum(change.mirrored for change in changes) < 250
    assert all(change.recoloured(PATCH) is PATCH for change in changes)


def test_draws_stay_within_their_limits_and_reach_them() -> None:
    random = np.random.default_rng(0)
    changes = [draw_change(ALL, 3, random) for _ in range(400)]
    gammas, hues = np.log2([c.gamma for c in changes]), np.array([c.hue for c in changes])
    saturations, gains = np.array([c.saturation for c in changes]), np.array([c.gains for c in changes])
    assert 0.27 < np.abs(gammas).max() <= 0.3 and 0.45 < np.abs(hues).max() <= 0.5
    assert 0.37 < np.abs(saturations - 1).max() <= 0.4
    assert 0.8 * 0.9 <= gains.min() < 0.8 and 1.2 < gains.max() <= 1.2 * 1.1


def test_one_draw_recolours_a_thumbnail_and_its_patches_alike() -> None:
    change = draw_change(ALL, 3, np.random.default_rng(3))
    mean = np.array([0.4, 0.5, 0.6])
    whole, part = change.recoloured(PATCH, mean=mean), change.recoloured(PATCH[2:7, 3:9], mean=mean)
    assert np.array_equal(whole[2:7, 3:9], part) and not np.array_equal(whole, PATCH)


@pytest.mark.parametrize("hue", [-0.6, 0.3, 2 * np.pi / 3])
def test_hue_turns_about_grey_and_keeps_lightness(hue: float) -> None:
    turned = Change(hue=hue).recoloured(PATCH).astype(float)
    assert np.abs(turned.mean(axis=2) - PATCH.mean(axis=2)).max() <= 1
    chroma = [(values - values.mean(axis=2, keepdims=True)) for values in (PATCH.astype(float), turned)]
    assert np.abs(np.linalg.norm(chroma[0], axis=2) - np.linalg.norm(chroma[1], axis=2)).max() <= 1.8
    angle = np.arctan2(np.linalg.norm(np.cross(*chroma), axis=2), (chroma[0] * chroma[1]).sum(axis=2))
    strong = np.linalg.norm(chroma[0], axis=2) > 40
    assert strong.sum() > 20 and np.abs(angle[strong] - abs(hue)).max() < 0.05


def test_a_third_of_a_turn_makes_red_green() -> None:
    red = np.full((1, 1, 3), (200, 100, 100), np.uint8)
    shown = Change(hue=2 * np.pi / 3).recoloured(red)[0, 0]
    assert shown.tolist() == [100, 200, 100]
    assert colorsys.rgb_to_hsv(*shown / 255)[0] == pytest.approx(1 / 3)


def test_saturation_scales_the_distance_from_grey() -> None:
    grey = PATCH.mean(axis=2, keepdims=True)
    expected = grey + 0.5 * (PATCH - grey)
    assert np.abs(Change(saturation=0.5).recoloured(PATCH) - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255.0), ("uint16", 10_000.0), ("float32", 1.0)])
def test_every_type_keeps_its_range(dtype: str, top: float) -> None:
    values = (np.random.default_rng(0).random((8, 8, 3)) * top).astype(dtype)
    shown = Change(gamma=0.8, contrast=1.3, gains=(1.3, 1.1, 0.9)).recoloured(values, top)
    assert shown.dtype == values.dtype and shown.min() >= 0 and shown.max() <= top
    assert np.abs(shown.astype(float) / top - values / top).max() < 0.5


def test_glass_is_white_and_leaves_ignored_pixels_alone() -> None:
    classes = np.zeros((12, 16), np.uint8)
    classes[:4] = IGNORE
    shares = []
    for seed in range(30):
        pixels, labels = under_glass(PATCH, classes, 2, np.random.default_rng(seed))
        covered = labels == 2
        shares.append(covered.mean())
        assert (labels[:4] == IGNORE).all() and np.array_equal(pixels[~covered], PATCH[~covered])
        assert not covered.any() or pixels[covered].min() > 205
    assert 0.1 < np.mean(shares) < 0.6

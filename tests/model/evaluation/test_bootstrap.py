"""Intervals: the same draws for every model, and a width that the counts explain."""

import numpy as np
import pytest

from model.evaluation.bootstrap import draw, interval, mean_iou
from model.evaluation.config import Bootstrap


def test_blocks_are_drawn_within_their_image_and_images_as_a_whole() -> None:
    blocks = draw([3, 1, 5], Bootstrap(draws=20, block=64)).times
    assert blocks.shape == (20, 9)
    assert (blocks[:, :3].sum(axis=1) == 3).all() and (blocks[:, 3] == 1).all()
    images = draw([1, 1, 1, 1], Bootstrap(draws=20)).times
    assert images.shape == (20, 4) and (images.sum(axis=1) == 4).all() and images.max() > 1


def test_the_seed_alone_decides() -> None:
    assert np.array_equal(draw([4], Bootstrap(block=64)).times, draw([4], Bootstrap(block=64)).times)
    assert not np.array_equal(draw([40], Bootstrap(block=64)).times, draw([40], Bootstrap(block=64, seed=1)).times)


def test_confusions_are_weighted_sums() -> None:
    units = np.random.default_rng(0).integers(0, 9, (5, 2, 2))
    draws = draw([5], Bootstrap(draws=10, block=64))
    wanted = [sum(n * unit for n, unit in zip(times, units, strict=True)) for times in draws.times]
    assert np.array_equal(draws.confusions(units), wanted)


def test_mean_iou_of_draws_leaves_absent_classes_out() -> None:
    confusion = np.array([[[3, 1, 0], [0, 4, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]])
    found = mean_iou(confusion, [0, 1, 2])
    assert found[0] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert np.isnan(found[1])
    assert mean_iou(confusion[:1], [1, 2])[0] == pytest.approx(4 / 5)


def test_the_interval_is_central() -> None:
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5, 95))
    assert interval(np.array([np.nan, 1, 2, 3]), 0.5) == pytest.approx((1.5, 2.5))

"""Object Dice and F1 by hand."""

import math

import numpy as np
import pytest

from model.evaluation.objects import compare_objects, components


def drawn(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Objects 1, 2, … as rectangles (top, left, bottom, right) on 20 x 20 pixels; later ones on top."""
    numbers = np.zeros((20, 20), np.int32)
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        numbers[top:bottom, left:right] = number
    return numbers


def test_one_found_one_missed_one_spurious() -> None:
    annotated = drawn((0, 0, 10, 10), (12, 0, 20, 5))
    predicted = drawn((0, 0, 10, 8), (12, 12, 16, 16))
    counts = compare_objects(predicted, annotated)
    assert (counts.found, counts.spurious, counts.missed) == (1, 1, 1)
    assert counts.f1 == pytest.approx(2 / 4)
    # Annotated: areas 100 and 40, Dice 160/180 and 0; predicted: areas 80 and 16, Dice 160/180 and 0.
    assert counts.dice == pytest.approx((100 / 140 * 160 / 180 + 80 / 96 * 160 / 180) / 2)


@pytest.mark.parametrize(("width", "found"), [(5, 1), (4, 0)])
def test_an_object_is_found_from_half_of_it_on(width: int, found: int) -> None:
    counts = compare_objects(drawn((0, 0, 10, width)), drawn((0, 0, 10, 10)))
    assert (counts.found, counts.spurious, counts.missed) == (found, 1 - found, 1 - found)


def test_two_predictions_of_one_object() -> None:
    counts = compare_objects(drawn((0, 0, 10, 6), (0, 7, 10, 10)), drawn((0, 0, 10, 10)))
    assert (counts.found, counts.spurious, counts.missed) == (1, 1, 0)
    assert counts.dice == pytest.approx((2 * 60 / 160 + (60 / 90 * 120 / 160 + 30 / 90 * 60 / 130)) / 2)


def test_one_prediction_over_two_objects_finds_one() -> None:
    counts = compare_objects(drawn((0, 0, 10, 10)), drawn((0, 0, 10, 6), (0, 6, 10, 10)))
    assert (counts.found, counts.spurious, counts.missed) == (1, 0, 1)


def test_nothing_on_one_side_or_on_both() -> None:
    nothing, something = drawn(), drawn((0, 0, 10, 10))
    assert compare_objects(nothing, something).missed == compare_objects(something, nothing).spurious == 1
    assert compare_objects(nothing, something).dice == compare_objects(something, nothing).f1 == 0
    empty = compare_objects(nothing, nothing)
    assert math.isnan(empty.dice) and math.isnan(empty.f1)


def test_objects_may_fill_the_image_and_have_any_numbers() -> None:
    counts = compare_objects(np.full((20, 20), 7), np.full((20, 20), 65537))
    assert (counts.f1, counts.dice) == (1, 1)


def test_images_add_up_to_their_pool() -> None:
    first = compare_objects(drawn((0, 0, 10, 8)), drawn((0, 0, 10, 10)))
    second = compare_objects(drawn((0, 0, 5, 5)), drawn((10, 10, 20, 20)))
    both = first + second
    assert (both.found, both.spurious, both.missed) == (1, 1, 1)
    assert both.dice == pytest.approx((100 / 200 * 160 / 180 + 80 / 105 * 160 / 180) / 2)


def test_components_touch_at_corners_too_and_are_large_enough() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0:2, 0:2] = mask[2:4, 2:4] = True
    mask[6, 6] = True
    assert components(mask, minimum=2).max() == 1
    assert components(mask, minimum=1).max() == 2
    assert (components(mask, minimum=2) > 0).sum() == 8

"""Measures against numbers worked out by hand and against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.metrics import (
    ClassCounts,
    Reliability,
    class_iou,
    confusion,
    count_classes,
    foveation_map,
    foveation_mse,
    gold_standard,
    mean_iou_slope,
    normalised_map,
)

PREDICTED = np.array([[0, 0, 1], [1, 2, 0]])
LABEL = np.array([[0, 1, 1], [9, -1, 0]])


def test_counts_by_hand() -> None:
    counts = count_classes(PREDICTED, LABEL, 4, ignore=9)
    assert counts.intersection.tolist() == [2, 1, 0, 0]
    assert counts.label.tolist() == [2, 2, 0, 0]
    assert counts.union.tolist() == [3, 2, 0, 0], "the pixels without a label do not count"
    assert counts.iou[:2] == pytest.approx([2 / 3, 1 / 2])
    assert counts.recall[:2] == pytest.approx([1, 1 / 2])
    assert counts.dice[:2] == pytest.approx([4 / 5, 2 / 3])
    assert counts.absent == [2, 3]
    assert counts.mean_iou() == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert counts.mean_iou("zero") == pytest.approx((2 / 3 + 1 / 2) / 4)


def test_accuracy_with_and_without_ignored_pixels() -> None:
    paper = count_classes(PREDICTED, LABEL, 4, ignore=9)
    code = count_classes(PREDICTED, LABEL, 4, ignore=9, accuracy_over="labelled")
    assert (paper.correct, paper.judged) == (3, 4)
    assert (code.correct, code.judged) == (3, 5)


def test_the_slope_of_the_mean_iou_is_its_small_difference() -> None:
    pooled = np.array([[500, 30, 2], [40, 300, 10], [0, 7, 90]]) * 10**6
    before = ClassCounts.of_confusion(pooled).mean_iou()
    slope = mean_iou_slope(pooled)
    for label, predicted in np.ndindex(3, 3):
        more = pooled.copy()
        more[label, predicted] += 1000
        assert slope[label, predicted] * 1000 == pytest.approx(
            ClassCounts.of_confusion(more).mean_iou() - before, rel=1e-3
        )
        assert (slope[label, predicted] > 0) == (label == predicted)


def test_nothing_labelled_gives_no_mean() -> None:
    counts = count_classes(PREDICTED, np.full((2, 3), 9), 4, ignore=9)
    assert math.isnan(counts.mean_iou())
    assert counts.mean_iou("zero") == 0
    assert counts.accuracy == 0


def test_a_prediction_that_is_no_class_is_an_error_not_a_crash() -> None:
    counts = count_classes(np.array([[255, 1]], np.uint8), np.array([[0, 1]], np.uint8), 2)
    assert counts.intersection.tolist() == [0, 1]
    assert counts.union.tolist() == [1, 1]


@given(st.integers(0, 10_000))
def test_counts_of_images_add_up_to_those_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    predicted, label = generator.integers(0, 3, (4, 6, 5)), generator.integers(-1, 4, (4, 6, 5))
    each = [count_classes(p, t, 3, ignore=3) for p, t in zip(predicted, label, strict=True)]
    total = each[0] + each[1] + each[2] + each[3]
    whole = count_classes(predicted.reshape(24, 5), label.reshape(24, 5), 3, ignore=3)
    for k in range(3):
        inside = (label >= 0) & (label != 3)
        assert total.union[k] == np.sum(((predicted == k) | (label == k)) & inside)
    assert total.iou.tolist() == whole.iou.tolist()
    assert (total.correct, total.judged) == (whole.correct, whole.judged)


def test_foveation_map_runs_from_the_smallest_to_the_largest() -> None:
    bank = (100, 200, 500)
    f = np.array([[1, 0, 0.5], [0, 0, 0.5], [0, 1, 0]]).reshape(3, 1, 3)
    assert foveation_map(f, bank).tolist() == [[100, 500, 150]]
    assert normalised_map(foveation_map(f, bank), bank).tolist() == [[0, 1, 0.125]]


def test_gold_standard() -> None:
    bank = (100, 200, 500)
    performance = np.array([[0.5, 0.0, 0.2], [0.5, 0.0, 0.6], [0.0, 0.0, 0.6]]).reshape(3, 1, 3)
    weighted = gold_standard(performance, bank)
    expected = (0.2 * 100 + 0.6 * 200 + 0.6 * 500) / 1.4
    assert weighted[0] == pytest.approx([150, 800 / 3, expected])
    assert gold_standard(performance, bank, "argmax").tolist() == [[100, 100, 200]]


def test_mse_compares_normalised_maps() -> None:
    assert foveation_mse(np.array([[100.0, 500.0]]), np.array([[500.0, 300.0]]), (100, 500)) == pytest.approx(0.625)


def test_confusion_gives_the_same_counts() -> None:
    label = np.where(LABEL < 0, 9, LABEL)
    found = ClassCounts.of_confusion(confusion(PREDICTED, label, 4, ignore=9))
    wanted = count_classes(PREDICTED, LABEL, 4, ignore=9)
    assert found.iou.tolist() == wanted.iou.tolist() and found.recall.tolist() == wanted.recall.tolist()
    assert (found.correct, found.judged) == (wanted.correct, wanted.judged)


def test_mean_over_some_classes() -> None:
    counts = count_classes(PREDICTED, LABEL, 4, ignore=9)
    assert counts.mean_iou(over=[1, 2]) == pytest.approx(1 / 2)
    assert math.isnan(counts.mean_iou(over=[3]))


def test_iou_of_many_confusions() -> None:
    iou = class_iou(np.array([[[3, 1], [0, 0]], [[0, 0], [0, 2]]]))
    assert iou[0] == pytest.approx([3 / 4, 0])
    assert math.isnan(iou[1, 0]) and iou[1, 1] == 1


def test_calibration_by_hand() -> None:
    # Bins are a fifteenth wide: three pixels at 0.9 of which one is right, one at 0.5 that is right.
    found = Reliability.of(np.array([0.9, 0.9, 0.9, 0.5]), np.array([True, False, False, True]))
    assert found.expected_error == pytest.approx(3 / 4 * abs(1 / 3 - 0.9) + 1 / 4 * 0.5)
    assert found.pixels[13] == 3 and found.correct[13] == 1 and found.pixels[7] == 1
    assert (found + found).expected_error == pytest.approx(found.expected_error)
    assert math.isnan(Reliability.empty().expected_error)


@pytest.mark.parametrize("confidence", [1 / 3, 1.0])
def test_sure_and_right_is_calibrated_only_at_one(confidence: float) -> None:
    found = Reliability.of(np.full(5, confidence, np.float32), np.ones(5, bool))
    assert found.expected_error == pytest.approx(1 - confidence, abs=1e-6)

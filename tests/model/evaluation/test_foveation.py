"""Gold standards and controls on maps small enough to work out."""

import numpy as np
import pytest

from model.evaluation.foveation import constant_maps, distances, gold_maps, random_maps
from model.evaluation.tally import WindowCounts

BANK = (10, 20, 30)
MAIN = ("weighted", "mIoU")


def counts(*iou_of_two_classes: tuple[float, float]) -> WindowCounts:
    """Windows whose two classes have these IoU, the second over ten times as many pixels."""
    union = np.array([[[100] * len(iou_of_two_classes)], [[1000] * len(iou_of_two_classes)]])
    share = np.array(iou_of_two_classes).T[:, None, :]
    return WindowCounts(np.round(union * share).astype(np.int64), union)


def test_both_gold_standards_by_both_measures() -> None:
    fixed = [counts((0.8, 0.2)), counts((0.4, 0.4)), counts((0.0, 0.6))]
    gold = gold_maps(fixed, BANK)
    assert gold["weighted", "mIoU"][0, 0] == pytest.approx((0.5 * 10 + 0.4 * 20 + 0.3 * 30) / 1.2)
    assert gold["argmax", "mIoU"][0, 0] == 10
    pooled = [280 / 1100, 440 / 1100, 600 / 1100]
    assert gold["weighted", "pooled IoU"][0, 0] == pytest.approx(np.dot(pooled, BANK) / sum(pooled))
    assert gold["argmax", "pooled IoU"][0, 0] == 30


def test_places_without_labels_are_left_out() -> None:
    empty = WindowCounts(np.zeros((2, 1, 2), np.int64), np.array([[[4, 0]], [[4, 0]]]))
    gold = gold_maps([empty, empty, empty], BANK)
    assert gold[MAIN][0, 0] == 20, "all models fail: the mean of the bank"
    assert np.isnan(gold[MAIN][0, 1])
    found = distances([np.array([[30.0, 10.0]])], [gold], BANK)
    assert found[MAIN].mean == pytest.approx(0.25)
    assert found[MAIN].std == 0


def test_mean_and_deviation_are_over_images() -> None:
    gold = [{rule: np.full((2, 2), 10.0) for rule in gold_rules()} for _ in range(2)]
    found = distances([np.full((2, 2), 10.0), np.full((2, 2), 30.0)], gold, BANK)
    assert (found[MAIN].mean, found[MAIN].std) == (0.5, 0.5)


def gold_rules() -> list[tuple[str, str]]:
    return list(gold_maps([counts((1, 1))] * 3, BANK))


def test_no_constant_beats_the_best_one() -> None:
    random = np.random.default_rng(0)
    gold = [{rule: random.uniform(10, 30, (4, 5)) for rule in gold_rules()} for _ in range(3)]
    errors = {name: distances(maps, gold, BANK)[MAIN].mean for name, maps in constant_maps(gold, BANK)}
    assert list(errors)[:3] == ["constant 10 px", "constant 20 px", "constant 30 px"]
    best = next(error for name, error in errors.items() if name.startswith("best"))
    tried = [np.full((4, 5), side) for side in np.linspace(10, 30, 41)]
    assert all(best <= distances([one] * 3, gold, BANK)[MAIN].mean + 1e-9 for one in tried)


def test_random_maps_are_seeded_and_from_the_bank() -> None:
    gold = [{rule: np.zeros((30, 30)) for rule in gold_rules()}]
    first, again = random_maps(gold, BANK, 1), random_maps(gold, BANK, 1)
    assert np.array_equal(first, again) and not np.array_equal(first, random_maps(gold, BANK, 2))
    assert set(np.unique(first[0])) == set(BANK)

"""Counts by block, window and bin against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.datasets.classes import IGNORE
from model.evaluation.predict import Strip
from model.evaluation.tally import Tally, WindowCounts, Windows
from raster.geometry import Size


@settings(max_examples=40)
@given(seed=st.integers(0, 999), height=st.integers(1, 30), width=st.integers(1, 30), strip=st.integers(1, 11))
def test_window_sums_are_those_of_slices(seed: int, height: int, width: int, strip: int) -> None:
    random = np.random.default_rng(seed)
    flags = random.integers(0, 2, (2, height, width)).astype(bool)

    def spans(length: int) -> list[tuple[int, int]]:
        return [tuple(sorted(random.integers(0, length + 1, 2).tolist())) for _ in range(4)]  # type: ignore[misc]

    rows, columns = spans(height), spans(width)
    windows = Windows(rows, columns, 2)
    for y in range(0, height, strip):
        windows.add(y, list(flags[:, y : y + strip]))
    wanted = [[[flags[k, a:b, c:d].sum() for c, d in columns] for a, b in rows] for k in range(2)]
    assert windows.sums().tolist() == wanted


def test_performance_in_windows_by_hand() -> None:
    counts = WindowCounts(np.array([[[3, 0, 0]], [[1, 4, 0]]]), np.array([[[4, 0, 0]], [[2, 8, 0]]]))
    assert counts.mean_iou()[0, :2] == pytest.approx([(3 / 4 + 1 / 2) / 2, 4 / 8])
    assert counts.pooled_iou()[0, :2] == pytest.approx([4 / 6, 4 / 8])
    assert np.isnan([counts.mean_iou()[0, 2], counts.pooled_iou()[0, 2]]).all(), "nothing is labelled there"


@pytest.mark.parametrize("strip", [1, 4, 5, 64])
def test_blocks_and_the_small_mask_do_not_depend_on_strips(strip: int) -> None:
    random = np.random.default_rng(1)
    scores = random.dirichlet(np.ones(3), (23, 17)).transpose(2, 0, 1).astype(np.float32)
    labels = random.integers(0, 3, (23, 17)).astype(np.uint8)
    labels[:5, :4] = IGNORE
    predicted = scores.argmax(axis=0)
    tally = Tally(Size(17, 23), 3, block=8, windows=None, shrink=4)
    for y in range(0, 23, strip):
        tally.add(Strip(y, scores[:, y : y + strip]), labels[y : y + strip])
    assert tally.confusion.shape == (9, 3, 3)
    part = np.s_[8:16, 16:17]
    for label, guess in np.ndindex(3, 3):
        assert tally.confusion[5, label, guess] == ((labels[part] == label) & (predicted[part] == guess)).sum()
    assert tally.confusion.sum() == (labels != IGNORE).sum() == tally.reliability.pixels.sum()
    assert np.array_equal(tally.mask, predicted[::4, ::4])

"""Finished labels: ties, no data, squares of a smaller mask, strips."""

import numpy as np
import pytest
import torch

from model.device import Ferry
from model.finishing import Taps, finish

CPU = torch.device("cpu")


def identity(length):
    index = np.arange(length)
    return Taps(index, index, np.zeros(length, np.float32))


def labels_of(sums, **changes):
    rows, columns = identity(sums.shape[1]), identity(sums.shape[2])
    settings = {"valid": None, "downsample": 1, "values": np.arange(sums.shape[0] - 1, dtype=np.uint8), "nodata": 255}
    return finish(sums, rows, columns, **(settings | changes), ferry=Ferry(CPU))["labels"].numpy()


def test_ties_go_to_the_lower_class_and_nothing_to_no_data():
    sums = np.zeros((4, 1, 3), np.float32)
    sums[:, 0, 0] = (0.1, 0.45, 0.45, 1.0)
    sums[:, 0, 1] = (1 / 3, 1 / 3, 1 / 3, 1.0)
    assert labels_of(sums, values=np.array([7, 8, 9], np.uint8)).tolist() == [[8, 7, 255]]


@pytest.mark.parametrize("side", [1, 2, 4])
def test_a_smaller_mask_takes_the_mean_over_valid_pixels(side):
    rng = np.random.default_rng(side)
    sums = np.ones((4, 9, 11), np.float32)
    sums[:3] = rng.dirichlet(np.ones(3), (9, 11)).transpose(2, 0, 1)
    valid = rng.random((9, 11)) < 0.6
    got = labels_of(sums, valid=valid, downsample=side)
    for row in range(got.shape[0]):
        for column in range(got.shape[1]):
            square = (slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
            inside = valid[square]
            mean = sums[:3, square[0], square[1]][:, inside].sum(axis=1)
            assert got[row, column] == (mean.argmax() if inside.any() else 255)


def test_strips_do_not_change_the_labels(monkeypatch):
    rng = np.random.default_rng(3)
    sums = rng.random((4, 60, 30), np.float32)
    whole = labels_of(sums, downsample=2)
    monkeypatch.setattr("model.finishing._STRIP_BYTES", 1)
    assert (labels_of(sums, downsample=2) == whole).all()

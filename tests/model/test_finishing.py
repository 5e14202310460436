"""Finished labels: ties, no data, squares of a smaller mask, strips."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.device import Ferry
from model.finishing import Taps, finish
from model.sums import OpenSums, ScaleSums
from raster.geometry import Region

CPU = torch.device("cpu")


def open_sums(values):
    """Of working pixels (K + 1, H, W)."""
    return OpenSums(Region(0, 0, values.shape[2], values.shape[1]), (ScaleSums(values),))


def identity(length):
    index = np.arange(length)
    return Taps(index, index, np.zeros(length, np.float32))


def labels_of(sums, **changes):
    rows, columns = identity(sums.shape[1]), identity(sums.shape[2])
    settings = {"valid": None, "downsample": 1, "values": np.arange(sums.shape[0] - 1, dtype=np.uint8), "nodata": 255}
    return finish(open_sums(sums), rows, columns, **(settings | changes), ferry=Ferry(CPU))["labels"].numpy()


@pytest.mark.parametrize("values", [(7, 8, 9), (0, 1, 2), (200, 3, 254)])
def test_ties_go_to_the_lower_class_and_nothing_to_no_data(values):
    sums = np.zeros((4, 1, 3), np.float32)
    sums[:, 0, 0] = (0.1, 0.45, 0.45, 1.0)
    sums[:, 0, 1] = (1 / 3, 1 / 3, 1 / 3, 1.0)
    assert labels_of(sums, values=np.array(values, np.uint8)).tolist() == [[values[1], values[0], 255]]


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


def taps(length, count, ratio):
    """As worker.placement: `count` output pixels over `length` working pixels that are `ratio` of them wide."""
    place = np.clip((np.arange(count) + 0.5) / ratio - 0.5, 0, length - 1)
    first = np.minimum(np.floor(place).astype(np.int64), max(0, length - 2))
    return Taps(first, np.minimum(first + 1, length - 1), (place - first).astype(np.float32))


@given(
    st.integers(1, 4), st.integers(1, 23), st.integers(1, 23), st.sampled_from([0.37, 0.5, 0.8, 1.06, 1.24, 2.7]),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_labels_between_working_pixels_are_those_of_the_interpolated_probabilities(classes, height, width, ratio, seed):
    """Fields of one class, noise, what was never examined and what has no data: as from probabilities in float64."""
    rng = np.random.default_rng(seed)
    fields = np.kron(rng.integers(classes, size=(-(-height // 5), -(-width // 5))), np.ones((5, 5), int))
    fields = fields[:height, :width]
    shares = rng.dirichlet(np.ones(classes), (height, width)) + 3 * rng.random() * np.eye(classes)[fields]
    shares = (shares / shares.sum(axis=-1, keepdims=True)).transpose(2, 0, 1)
    weight = rng.random((height, width)) + 0.1
    weight[rng.random((height, width)) < rng.choice([0, 0.1])] = 0
    sums = np.concatenate([shares * weight, weight[None]]).astype(np.float32)
    rows, columns = (taps(length, max(1, int(length * ratio)), ratio) for length in (height, width))
    valid = rng.random((len(rows.t), len(columns.t))) < 0.9
    settings = {"valid": valid, "downsample": 1, "values": np.arange(classes, dtype=np.uint8) + 3, "nodata": 255}
    got = finish(open_sums(sums), rows, columns, **settings, ferry=Ferry(CPU))["labels"].numpy()

    exact = np.where(weight > 0, sums[:-1].astype(float) / np.maximum(sums[-1], 1e-30), 0)
    for axis, line in ((2, columns), (1, rows)):
        t = line.t.reshape((1, 1, -1) if axis == 2 else (1, -1, 1)).astype(float)
        exact = exact.take(line.first, axis) * (1 - t) + exact.take(line.second, axis) * t
    near = [np.where(line.t <= 0.5, line.first, line.second) for line in (rows, columns)]
    examined = (weight[np.ix_(*near)] > 0) & valid
    best = np.sort(exact, axis=0)
    clear = (best[-1] - best[-2] > 1e-6) if classes > 1 else np.ones(examined.shape, bool)
    wanted = np.where(examined, exact.argmax(axis=0) + 3, 255)
    assert (got == wanted)[clear | ~examined].all()
    both = finish(open_sums(sums), rows, columns, **settings, ferry=Ferry(CPU), extras=("uncertainty",))[
        "labels"
    ].numpy()
    assert (got == both)[clear | ~examined].all()

"""Sums of windowed probabilities: constants, symmetry, order, enlarging."""

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from model.accumulator import Accumulator, stitching_window
from model.enlarging import enlarged
from raster.geometry import Region, Size

CPU = torch.device("cpu")


@given(st.integers(1, 64), st.integers(0, 48))
def test_the_window_is_symmetric_and_nowhere_zero(patch, overlap):
    window = stitching_window(patch, min(overlap, patch - 1))
    assert torch.equal(window, window.flip(0))
    assert window.min() > 0
    assert window.max() <= 1


@given(st.integers(2, 32).map(lambda half: 2 * half), st.data())
def test_neighbouring_windows_sum_to_a_constant_up_to_half_a_patch_of_overlap(patch, data):
    overlap = data.draw(st.integers(1, patch // 2))
    window = stitching_window(patch, overlap)
    assert torch.allclose(window[:overlap] + window[-overlap:], torch.ones(overlap))


def test_a_constant_comes_back_to_1e_6_whatever_overlaps():
    rng = np.random.default_rng(0)
    sums = Accumulator(3, Size(50, 40), 16, 12, CPU)
    constant = torch.tensor([0.2, 0.3, 0.5]).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
    for y in range(0, 40, 4):
        for x in range(0, 50, 4):
            origin = np.array([[min(x, 47), min(y, 37)]])
            sums.add(constant, origin, rng.random(1, np.float32) + 0.1)
    total = sums.part(Region(0, 0, 50, 40))
    assert np.abs(total[:3] / total[3] - constant[0, :, :1, :1].numpy()).max() < 1e-6


def test_the_memory_of_one_block_serves_the_next_and_remembers_nothing():
    patch = torch.ones(1, 3, 16, 16)

    def added(sums):
        sums.add(patch, np.array([[3, 5]]), np.ones(1, np.float32))
        return sums.part(Region(0, 0, 20, 24))

    sums = Accumulator(3, Size(50, 40), 16, 12, CPU)
    added(sums)
    assert sums.emptied(Size(51, 40)) is None
    assert np.array_equal(added(sums.emptied(Size(20, 24))), added(Accumulator(3, Size(20, 24), 16, 12, CPU)))
    assert sums.emptied(Size(40, 50)).part(Region(0, 0, 40, 50)).shape == (4, 50, 40)


def test_memory_of_which_little_was_touched_is_emptied_there():
    sums = Accumulator(3, Size(50, 40), 16, 12, CPU)
    for x, y in ((-4, 30), (45, -8), (10, 10), (12, 10)):
        sums.add_patch(torch.ones(3, 16, 16), x, y)
    assert sums.part(Region(0, 0, 50, 40)).any()
    assert not sums.emptied(Size(50, 40)).part(Region(0, 0, 50, 40)).any()


def test_parts_of_a_patch_weigh_what_the_patch_of_their_size_would_at_a_finer_scale():
    """Four quarters, whose windows share an eighth of their sides: a constant, and a weight of 1 within."""
    sums = Accumulator(3, Size(14, 14), 16, 4, CPU)
    for x in (-1, 5):
        for y in (-1, 5):
            sums.add_patch(torch.full((3, 8, 8), 0.25), x, y)
    total = sums.part(Region(0, 0, 14, 14))
    assert np.allclose(total[:3], 0.25 * total[3])
    assert np.allclose(total[3, 1:11, 1:11], 1)


def test_sixteen_fold_overlap_agrees_with_float64():
    rng = np.random.default_rng(4)
    patches = rng.dirichlet(np.ones(2), (64, 8, 8)).transpose(0, 3, 1, 2).astype(np.float32)
    origins = np.array([[x, y] for y in range(0, 16, 2) for x in range(0, 16, 2)])
    sums = Accumulator(2, Size(22, 22), 8, 6, CPU)
    sums.add(torch.from_numpy(patches), origins, np.ones(64, np.float32))
    line = stitching_window(8, 6).double().numpy()
    wanted = np.zeros((3, 22, 22))
    for patch, (x, y) in zip(patches, origins, strict=True):
        weight = np.outer(line, line)
        wanted[:2, y : y + 8, x : x + 8] += patch * weight
        wanted[2, y : y + 8, x : x + 8] += weight
    assert np.abs(sums.part(Region(0, 0, 22, 22)) - wanted).max() < 1e-5


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 8), st.data(),
)  # fmt: skip
def test_enlarging_a_part_is_the_part_of_the_enlarged(height, width, scale, data):
    values = np.random.default_rng(height * 100 + width).random((2, height, width), np.float32)
    rows, columns = (
        range(*sorted(data.draw(st.tuples(st.integers(0, length * scale - 1), st.integers(1, length * scale)))))
        for length in (height, width)
    )
    assume(len(rows) and len(columns))
    got = enlarged(torch.from_numpy(values), scale, rows, columns).numpy()
    wanted = values
    for axis, places in ((1, rows), (2, columns)):
        length = values.shape[axis]
        place = np.clip((np.array(places) + 0.5) / scale - 0.5, 0, length - 1)
        first = np.floor(place).astype(int)
        t = (place - first).reshape((-1, 1) if axis == 1 else (1, -1))
        second = np.minimum(first + 1, length - 1)
        wanted = wanted.take(first, axis) * (1 - t) + wanted.take(second, axis) * t
    np.testing.assert_allclose(got, wanted, atol=1e-6)

"""The resampler: constants stay, whole ratios are means, centres of gravity do not move."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raster.geometry import Region, Size
from raster.resample import footprint, resample

ratios = st.one_of(st.sampled_from([0.37, 0.5, 1.0, 1.06, 2.0, 2.7, 3.0, 4.0]), st.floats(0.2, 6.0))


def sample(picture, box, size):
    """`picture` on an endless ground of its first pixel's value, read at `box`."""
    wanted = footprint(box, ((box[2] - box[0]) / size.width, (box[3] - box[1]) / size.height))
    ground = np.full((wanted.height, wanted.width, *picture.shape[2:]), picture.flat[0], picture.dtype)
    inside = wanted.intersection(Region(0, 0, picture.shape[1], picture.shape[0]))
    ground[inside.slices(wanted.x, wanted.y)] = picture[inside.slices()]
    return resample(ground, wanted, box, size)


@given(ratios, ratios, st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 255))
def test_a_constant_stays_what_it_is(rx, ry, x, y, value):
    out = sample(np.full((40, 40, 3), value, np.uint8), (x, y, x + 7 * rx, y + 5 * ry), Size(7, 5))
    assert out.shape == (5, 7, 3)
    assert (out == value).all()


@pytest.mark.parametrize("step", [2, 3, 4, 8])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_whole_ratios_are_means_over_areas(step, bands):
    rng = np.random.default_rng(step)
    picture = rng.integers(0, 256, (6 * step, 5 * step, bands), np.uint8)
    out = sample(picture, (0, 0, 5 * step, 6 * step), Size(5, 6))
    means = picture.reshape(6, step, 5, step, bands).mean(axis=(1, 3))
    assert np.abs(out - means).max() < 1


@pytest.mark.parametrize("ratio", [0.37, 1.0, 1.06, 2.7])
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_bright_pixel_keeps_its_place(ratio, phase_x, phase_y):
    """Its centre of gravity moves by less than 0.05 output pixels, whatever the phase."""
    picture = np.zeros((61, 61), np.float32)
    picture[30, 30] = 1.0
    size = Size(int(60 / ratio) - 1, int(60 / ratio) - 1)
    x, y = phase_x * ratio, phase_y * ratio
    out = sample(picture, (x, y, x + size.width * ratio, y + size.height * ratio), size)
    weight = out.sum()
    centre_x = (out.sum(0) @ (np.arange(size.width) + 0.5)) / weight
    centre_y = (out.sum(1) @ (np.arange(size.height) + 0.5)) / weight
    assert abs(centre_x - (30.5 - x) / ratio) < 0.05
    assert abs(centre_y - (30.5 - y) / ratio) < 0.05


def test_a_checkerboard_at_a_quarter_becomes_grey():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    out = sample(board, (0, 0, 64, 64), Size(16, 16))
    assert out.min() >= 127
    assert out.max() <= 128
    slanted = sample(board, (0.3, 0.3, 0.3 + 14 * 4.2, 0.3 + 14 * 4.2), Size(14, 14))
    assert np.abs(slanted.astype(int) - 127.5)[2:-2, 2:-2].max() < 12


def test_floats_and_bands_beyond_three_are_resampled_band_by_band():
    picture = np.random.default_rng(0).random((12, 12, 5), np.float32)
    out = sample(picture, (0, 0, 12, 12), Size(4, 4))
    assert np.allclose(out, picture.reshape(4, 3, 4, 3, 5).mean(axis=(1, 3)), atol=1e-6)


@pytest.mark.parametrize("ratio", [0.37, 1.24, 2.0, 3.0])
def test_sixteen_bits_keep_their_steps(ratio):
    picture = np.random.default_rng(1).integers(0, 65536, (40, 40, 4)).astype(np.uint16)
    box = (0, 0, 12 * ratio, 12 * ratio)
    out = sample(picture, box, Size(12, 12))
    assert out.dtype == np.uint16
    assert np.abs(out - sample(picture.astype(np.float32), box, Size(12, 12)).astype(float)).max() <= 0.5

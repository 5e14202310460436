"""Sums held at several scales: what is read between their pixels, and the labels, against plain interpolation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import sums
from model.device import Ferry
from model.finishing import Taps, finish
from model.sums import OpenSums, ScaleSums
from raster.geometry import Region, Size
from raster.grid import sources

CPU = torch.device("cpu")
K, NODATA = 3, 255
VALUES = [4, 0, 7]


def interpolated(values, scale, size):
    """(K + 1, height, width) float64: every pixel a square of `scale`, linear between the centres."""
    for axis, length in ((1, size.height), (2, size.width)):
        place = np.clip((np.arange(length) + 0.5) / scale - 0.5, 0, values.shape[axis] - 1)
        first = np.floor(place).astype(int)
        second = np.minimum(first + 1, values.shape[axis] - 1)
        t = (place - first).reshape((-1, 1) if axis == 1 else (1, -1))
        values = values.take(first, axis) * (1 - t) + values.take(second, axis) * t
    return values


@st.composite
def images(draw):
    """Sums of a whole image by scale, in smooth blobs with places that a scale says nothing about; and a part of it."""
    size = Size(draw(st.integers(1, 90)), draw(st.integers(1, 90)))
    scales = draw(st.lists(st.sampled_from([1, 2, 3, 4, 8]), unique=True, min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    whole = {}
    for scale in scales:
        shape = -(-size.height // scale), -(-size.width // scale)
        coarse = rng.dirichlet(np.ones(K), (shape[0] // 6 + 1, shape[1] // 6 + 1)).transpose(2, 0, 1)
        scores = coarse.repeat(6, 1).repeat(6, 2)[:, : shape[0], : shape[1]] + 0.05 * rng.random((K, *shape))
        weights = (
            rng.random(shape)
            * (rng.random((shape[0] // 9 + 1, shape[1] // 9 + 1)) < 0.6)
            .repeat(9, 0)
            .repeat(9, 1)[: shape[0], : shape[1]]
        )
        whole[scale] = np.concatenate([scores * weights, weights[None]]).astype(np.float32)
    x, y = draw(st.integers(0, size.width - 1)), draw(st.integers(0, size.height - 1))
    part = Region.between(x, y, draw(st.integers(x + 1, size.width)), draw(st.integers(y + 1, size.height)))
    return size, whole, part


def over(size, whole, part):
    """The sums over the part, with what it is read from and no more."""
    found = []
    for scale, values in whole.items():
        x0, x1 = sources(range(part.x, part.x1), scale, -(-size.width // scale))
        y0, y1 = sources(range(part.y, part.y1), scale, -(-size.height // scale))
        found.append(ScaleSums(torch.from_numpy(values[:, y0:y1, x0:x1]), scale, x0, y0))
    return OpenSums(part, tuple(found))


def expected(size, whole, part):
    total = sum(interpolated(values.astype(np.float64), scale, size) for scale, values in whole.items())
    return total[(slice(None), *part.slices())]


@settings(max_examples=60, deadline=None)
@given(images())
def test_the_order_in_which_scales_came_changes_no_bit(image):
    there = over(*image)
    turned = OpenSums(there.region_w, there.parts[::-1])
    assert torch.equal(there.working(), turned.working())
    assert torch.equal(there.labels(VALUES, NODATA), turned.labels(VALUES, NODATA))


def taps_of(length):
    index = np.arange(length)
    return Taps(index, index, np.zeros(length, np.float32))


@settings(max_examples=150, deadline=None)
@given(images())
def test_a_part_reads_all_scales_between_their_centres(image):
    np.testing.assert_allclose(over(*image).working().numpy(), expected(*image), atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(images(), st.sampled_from([5, 16, 128]))
def test_labels_are_those_of_the_interpolated_sums(image, tile):
    wanted = expected(*image)
    # Where two classes are as good as equal, rounding decides; nothing else may.
    two = np.sort(wanted[:-1], axis=0)[-2:]
    clear = (two[1] - two[0] > 1e-5) | (wanted[-1] == 0)
    labels = np.where(wanted[-1] > 0, np.array(VALUES)[wanted[:-1].argmax(axis=0)], NODATA)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sums, "_TILE", tile)
        patched.setattr(sums, "_AT_ONCE", 50)
        got = over(*image).labels(VALUES, NODATA).numpy()
    assert (got == labels)[clear].all()


@settings(max_examples=60, deadline=None)
@given(images(), st.booleans())
def test_the_mask_is_the_same_with_and_without_other_outputs(image, gaps):
    """Other outputs need every pixel's scores, and their labels come from these."""
    size, whole, part = image
    valid = None if not gaps else np.random.default_rng(0).random(part.size.shape) < 0.8
    settings = {"valid": valid, "downsample": 1, "values": np.array(VALUES, np.uint8), "nodata": NODATA}
    rows, columns = taps_of(part.height), taps_of(part.width)
    alone = finish(over(*image), rows, columns, **settings, ferry=Ferry(CPU))["labels"].numpy()
    both = finish(over(*image), rows, columns, **settings, ferry=Ferry(CPU), extras=("uncertainty",))
    wanted = expected(size, whole, part)
    two = np.sort(wanted[:-1], axis=0)[-2:]
    assert (alone == both["labels"].numpy())[(two[1] - two[0] > 1e-5) | (wanted[-1] == 0)].all()
    assert valid is None or (alone[~valid] == NODATA).all()


def test_where_nothing_was_added_there_is_no_data():
    empty = OpenSums(Region(8, 8, 20, 10), (ScaleSums(torch.zeros(K + 1, 7, 9), 4, 1, 1),))
    assert (empty.labels(VALUES, NODATA) == NODATA).all()

"""Windows, grids and patches of the geometries `center` and `parity`."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from foveate.errors import OptionInvalid
from model.extract import extract_labels, extract_patches
from model.geometry import Geometry
from model.resample import area, bilinear, bilinear_weights, low_resolution
from raster.geometry import Region, Size

BANK = (13, 22, 37)


@pytest.mark.parametrize(
    ("kind", "i", "starts"),
    [
        ("parity", 0, [0, -5, -12]),
        ("parity", 3, [30, 25, 18]),
        ("parity", 7, [70, 65, 58]),
        ("center", 0, [-2, -6, -14]),
        ("center", 3, [26, 22, 14]),
        ("center", 7, [64, 59, 52]),
    ],
)
def test_worked_rows_of_the_specification(kind: str, i: int, starts: list[int]) -> None:
    geometry = Geometry(BANK, 10, kind)  # type: ignore[arg-type]
    size = Size(75, 75)
    assert geometry.grid(size) == (8, 8)
    windows = geometry.windows(size, (i, 0))
    assert [window.y for window in windows] == starts
    assert [window.x for window in geometry.windows(size, (0, i))] == starts
    assert geometry.score_window(size, (i, 0)) == Region(windows[0].x, starts[0], 13, 13)


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    bank=st.lists(st.integers(4, 120), min_size=1, max_size=4, unique=True),
    step=st.integers(1, 60),
    aspect=st.integers(1, 2),
    coarse=st.booleans(),
)
def test_center_is_concentric_and_covers(
    width: int, height: int, bank: list[int], step: int, aspect: int, coarse: bool
) -> None:
    geometry = Geometry(tuple(sorted(bank)), step, "center", aspect=aspect, coarse=coarse)
    size = Size(width, height)
    try:
        rows, columns = geometry.grid(size)
    except OptionInvalid:
        assert step > geometry.bank[0] // 2, "rounding the grid can stretch a step by at most a half"
        return
    assume(rows * columns < 3000)
    covered = np.zeros(size.shape, bool)
    for row in range(rows):
        for column in range(columns):
            windows = geometry.windows(size, (row, column))
            centres = [(2 * w.x + w.width, 2 * w.y + w.height) for w in windows]
            for axis in (0, 1):
                assert max(c[axis] for c in centres) - min(c[axis] for c in centres) <= 2, "within one pixel"
            inside = windows[0].intersection(Region.of(size))
            covered[inside.slices()] = True
    assert covered.all()


def test_a_coarse_grid_within_the_smallest_window_is_never_refused() -> None:
    for N in range(1, 200):
        assert Geometry((8,), 8, coarse=True).grid(Size(N, N)) == (-(-N // 8), -(-N // 8))


@pytest.mark.parametrize("coarse", [False, True])
def test_a_grid_with_holes_is_refused(coarse: bool) -> None:
    with pytest.raises(OptionInvalid, match="cannot cover") as caught:
        Geometry((8, 16), 20, coarse=coarse).grid(Size(100, 100))
    assert "8" in caught.value.hint
    assert Geometry((8, 16), 20, "parity").grid(Size(100, 100)) == (5, 5)


@pytest.mark.parametrize("settings", [{"adjust": True}, {"outside": "none"}])
def test_center_knows_neither_adjusted_nor_clamped_windows(settings: dict[str, object]) -> None:
    with pytest.raises(OptionInvalid):
        Geometry(BANK, 10, "center", **settings)  # type: ignore[arg-type]


def test_unsuitable_combinations_are_refused() -> None:
    size = Size(30, 30)
    with pytest.raises(OptionInvalid, match="padding"):
        Geometry(BANK, 10, "parity", outside="none", adjust=True)
    with pytest.raises(OptionInvalid, match="37"):
        Geometry(BANK, 10, "parity", outside="none").windows(size, (0, 0))
    with pytest.raises(OptionInvalid, match="stride 4"):
        Geometry(BANK, 10, "center").label_window(size, (0, 0), 4)
    with pytest.raises(OptionInvalid, match="13"):
        Geometry(BANK, 10, "parity", adjust=True).score_window(Size(12, 12), (0, 0))
    with pytest.raises(OptionInvalid, match="37"):
        extract_patches(torch.zeros(1, 1, 12, 12), Geometry(BANK, 10, outside="mirror"), (0, 0))


@given(rate=st.floats(1, 3))
def test_an_enlarged_bank_is_cut_to_whole_pixels(rate: float) -> None:
    assert Geometry(BANK, 10, "parity").enlarged(rate).bank == tuple(int(rate * side) for side in BANK)


@pytest.mark.parametrize("outside", ["zeros", "mirror"])
@pytest.mark.parametrize("kind", ["center", "parity"])
def test_patches_are_padded_cropped_and_resampled(kind: str, outside: str) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 41, 53)
    geometry = Geometry((9, 16, 30), 8, kind, outside=outside)  # type: ignore[arg-type]
    size = Size(53, 41)
    padded = functional.pad(image, (40, 40, 40, 40), mode="reflect" if outside == "mirror" else "constant")
    rows, columns = geometry.grid(size)
    for location in ((0, 0), (rows - 1, columns - 1), (2, 3)):
        patches = extract_patches(image, geometry, location)
        assert patches.shape == (3, 2, 3, 9, 9)
        for patch, window in zip(patches, geometry.windows(size, location), strict=True):
            cut = padded[:, :, window.y + 40 : window.y1 + 40, window.x + 40 : window.x1 + 40]
            resampled = (area if kind == "center" else bilinear)(cut, 9, 9)
            assert torch.allclose(patch, resampled, atol=1e-5)


def test_the_smallest_patch_is_a_copy() -> None:
    image = torch.randn(1, 2, 40, 40)
    geometry = Geometry((10, 20), 8)
    window = geometry.windows(Size(40, 40), (2, 2))[0]
    patch = extract_patches(image, geometry, (2, 2))[0]
    assert torch.equal(patch, image[:, :, window.y : window.y1, window.x : window.x1])


def test_labels_outside_the_image_get_the_fill() -> None:
    label = torch.arange(36).reshape(1, 6, 6)
    labels = extract_labels(label, Geometry((5,), 3), (0, 0), Size(6, 6), fill=-2)
    assert labels[0, :2].tolist() == [[-2, -2, -2, -2, -2], [-2, 0, 1, 2, 3]]
    mirrored = extract_labels(label, Geometry((5,), 3, outside="mirror"), (0, 0), Size(6, 6), fill=-2)
    assert mirrored[0, :2].tolist() == [[7, 6, 7, 8, 9], [1, 0, 1, 2, 3]]
    cut = extract_labels(label, Geometry((5,), 3, "parity", outside="none"), (1, 1), Size(6, 6), fill=-2)
    assert cut.tolist() == [[[21, 22, 23], [27, 28, 29], [33, 34, 35]]]


@given(length=st.integers(1, 40), samples=st.integers(1, 40))
def test_area_keeps_the_mean_and_agrees_with_pooling(length: int, samples: int) -> None:
    assume(samples <= length)
    torch.manual_seed(0)
    values = torch.rand(1, 1, length, length)
    small = area(values, samples, samples)
    assert float(small.mean()) == pytest.approx(float(values.mean()), abs=1e-5)
    if length % samples == 0:
        assert torch.allclose(small, functional.avg_pool2d(values, length // samples), atol=1e-6)


@given(length=st.integers(1, 30), samples=st.integers(1, 30))
def test_bilinear_weights_are_the_interpolation(length: int, samples: int) -> None:
    torch.manual_seed(0)
    values = torch.rand(1, 1, length, 1)
    positions = (torch.arange(samples, dtype=torch.float64) + 0.5) * length / samples - 0.5
    read = bilinear_weights(positions, length) @ values[0, 0]
    assert torch.allclose(read, bilinear(values, samples, 1)[0, 0], atol=1e-5)


def test_the_low_resolution_image_is_never_empty() -> None:
    assert low_resolution(torch.ones(1, 3, 2, 3), 16, antialias=True).shape == (1, 3, 1, 1)


def test_only_the_antialiased_image_sees_every_pixel() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 1, 1] = 256
    assert float(low_resolution(image, 16, antialias=True)[0, 0, 0, 0]) == pytest.approx(1)
    assert float(low_resolution(image, 16, antialias=False).abs().max()) == 0

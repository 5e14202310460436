"""raster/bands.py: bands by name or by number, values by one rule for the whole image."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foveate.errors import BandsMismatch
from foveate.schema import SegmentOptions
from raster.bands import BandPlan, plan_bands
from tests.raster.cards import make_card, make_info


def plan(named: list[str], dtype: str = "uint8", *, card: dict[str, Any] | None = None, **options: Any) -> BandPlan:
    return plan_bands(make_info(bands=named, dtype=dtype), make_card(**(card or {})).input, SegmentOptions(**options))


@pytest.mark.parametrize(
    ("bands", "indices"),
    [
        (["red", "green", "blue"], (0, 1, 2)),
        (["blue", "green", "red"], (2, 1, 0)),
        (["undefined", "red", "green", "blue"], (1, 2, 3)),
        (["red", "green", "blue", "nir"], (0, 1, 2)),
    ],
)
def test_bands_are_found_by_their_colour(bands: list[str], indices: tuple[int, ...]) -> None:
    assert plan(bands).indices == indices


def test_bands_left_over_are_said() -> None:
    assert plan(["red", "green", "blue", "nir"]).warnings == ("bands not used: 4 (nir)",)
    assert plan(["red", "green", "blue"]).warnings == ()


def test_numbers_count_from_one_and_win_over_names() -> None:
    assert plan(["red", "green", "blue", "nir"], bands=[4, 3, 2]).indices == (3, 2, 1)


@pytest.mark.parametrize(
    ("bands", "dtype", "remedy"),
    [
        (["gray"], "uint8", "--bands 1,1,1 "),
        (["gray", "undefined", "undefined"], "uint8", "--bands 1,2,3 "),
        (["undefined"] * 5, "uint8", "--bands with 3 numbers from 1 to 5"),
        (["red", "red", "green", "blue"], "uint8", "--bands with 3 numbers from 1 to 4"),
        (["red", "green", "blue"], "uint16", "--rescale LO,HI.*0,65535"),
        (["red", "green", "blue"], "int16", "--rescale LO,HI.*-32768,32767"),
        (["gray"], "float32", "--bands 1,1,1 .*and --rescale LO,HI"),
    ],
)
def test_what_the_file_does_not_say_is_asked_for(bands: list[str], dtype: str, remedy: str) -> None:
    with pytest.raises(BandsMismatch) as refusal:
        plan(bands, dtype)
    assert re.search(remedy, refusal.value.hint)
    assert "image.tif" in refusal.value.message


@pytest.mark.parametrize(
    ("bands", "numbers", "says"),
    [
        (["gray"], [1, 1], "names 2 bands"),
        (["gray"], [1, 1, 2], "names band 2"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(bands: list[str], numbers: list[int], says: str) -> None:
    with pytest.raises(BandsMismatch, match=says):
        plan(bands, bands=numbers)


def test_complex_values_are_refused_whatever_is_asked() -> None:
    with pytest.raises(BandsMismatch, match="complex"):
        plan(["gray"], "complex_int16", bands=[1, 1, 1], rescale=(0, 1))


def test_values_of_the_right_type_pass_untouched() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    converted = plan(["blue", "green", "red"]).convert(pixels)
    assert converted.flags.c_contiguous
    assert np.array_equal(converted, pixels[:, :, ::-1])


def test_one_band_can_be_shown_three_times() -> None:
    pixels = np.array([[[7], [8]]], dtype=np.uint8)
    assert plan(["gray"], bands=[1, 1, 1]).convert(pixels).tolist() == [[[7, 7, 7], [8, 8, 8]]]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"])
def test_rescale_clips_and_rounds_half_up(dtype: str) -> None:
    rescaled = plan(["gray"], dtype, bands=[1, 1, 1], rescale=(10, 20))
    pixels = np.array([[[0], [10], [11], [15], [20], [100]]], dtype=dtype)
    assert rescaled.convert(pixels)[0, :, 0].tolist() == [0, 0, 26, 128, 255, 255]  # 25.5 and 127.5 go up


def test_negative_values_are_scaled_by_their_sign() -> None:
    rescaled = plan(["gray"], "int16", bands=[1, 1, 1], rescale=(-100, 100))
    assert rescaled.convert(np.array([[[-100], [0], [100]]], np.int16))[0, :, 0].tolist() == [0, 128, 255]


def test_nan_and_infinity_are_quiet() -> None:
    rescaled = plan(["gray"], "float32", bands=[1, 1, 1], rescale=(0, 1))
    pixels = np.array([[[np.nan], [np.inf], [-np.inf], [1e38]]], np.float32)
    assert rescaled.convert(pixels)[0, :, 0].tolist() == [0, 255, 0, 255]


def test_other_types_of_bundles_get_their_own_scale() -> None:
    card = {"dtype": "float32", "value_scale": 2.0}
    rescaled = plan(["gray"], "uint16", card=card, bands=[1, 1, 1], rescale=(0, 100))
    converted = rescaled.convert(np.array([[[0], [25], [100]]], np.uint16))
    assert converted.dtype == np.float32
    assert converted[0, :, 0].tolist() == [0.0, 0.5, 2.0]


@given(
    values=hnp.arrays(np.uint16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)),
    low=st.integers(-10, 60_000),
    span=st.integers(1, 70_000),
    row=st.integers(0, 8),
)
def test_a_value_means_the_same_in_every_tile(values: Any, low: int, span: int, row: int) -> None:
    rescaled = BandPlan((0,), "uint16", "uint8", rescale=(low, low + span))
    whole = rescaled.convert(values)
    assert np.array_equal(rescaled.convert(values[row:]), whole[row:])
    exact = np.floor(np.clip((values[:, :, :1].astype(float) - low) * 255.0 / span, 0, 255) + 0.5)
    assert np.array_equal(whole, exact.astype(np.uint8))

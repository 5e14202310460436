"""Polynomials that stand for a projection: as good as it, or none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from raster.geometry import Size
from raster.georeference import Georeference
from raster.places import Places, ground_of
from raster.smooth import SmoothPlaces

TOLERANCE = 1e-10


def places_of(crs: int | str, transform: tuple[float, float, float, float, float, float], size: Size) -> Places:
    ground = ground_of(Georeference(crs=CRS.from_user_input(crs).to_wkt(), transform=transform))
    assert ground is not None
    return Places(ground, size)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (32640, (0.5, 0, 200_000, 0, -0.5, 2_700_000)),
        (32640, (10, 0, 600_000, 0, -10, 2_800_000)),
        (3035, (20, 0, 4_300_000, 0, -20, 3_200_000)),
        (3857, (2, 0, 1_000_000, 0, -2, 6_000_000)),
        (2193, (1, 0.3, 1_700_000, 0.3, -1, 5_400_000)),
        (3413, (10, 0, -1_000_000, 0, -10, -1_500_000)),
        (4326, (1e-4, 2e-5, 11, 2e-5, -1e-4, 48)),
        (27700, (1, 0, 500_000, 0, -1, 200_000)),
    ],
)
def test_every_place_is_that_of_the_projection(
    crs: int, transform: tuple[float, float, float, float, float, float]
) -> None:
    size = Size(9000, 5000)
    exact = places_of(crs, transform, size)
    found = SmoothPlaces.fitted(exact, size, TOLERANCE)
    assert found is not None
    pixels = np.random.default_rng(0).uniform((0, 0), (size.width, size.height), (40_000, 2))
    corners = np.array([[0.0, 0], [size.width, 0], [0, size.height], [size.width, size.height]])
    for asked in (pixels, corners):
        assert np.abs(found(asked) - exact(asked)).max() <= 1.5 * TOLERANCE


def test_what_is_too_wide_or_has_a_kink_keeps_its_projection() -> None:
    size = Size(9000, 9000)
    continent = places_of(3035, (500, 0, 2_500_000, 0, -500, 5_500_000), size)
    assert SmoothPlaces.fitted(continent, size, TOLERANCE) is None
    smooth = places_of(32640, (0.5, 0, 200_000, 0, -0.5, 2_700_000), size)
    kinked = SmoothPlaces.fitted(lambda pixels: smooth(pixels) + 1e-12 * np.maximum(pixels - 3000, 0), size, TOLERANCE)
    assert kinked is None


@given(cut=st.integers(0, 40_000), length=st.integers(1, 100))
def test_a_place_does_not_depend_on_the_others_asked_for(cut: int, length: int) -> None:
    size = Size(8192, 8192)
    exact = places_of(32640, (0.5, 0, 200_000, 0, -0.5, 2_700_000), size)
    found = SmoothPlaces.fitted(exact, size, TOLERANCE)
    assert found is not None
    pixels = np.random.default_rng(1).integers(0, 8192, (40_100, 2)).astype(float)
    assert np.array_equal(found(pixels)[cut : cut + length], found(pixels[cut : cut + length]))

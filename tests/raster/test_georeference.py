"""The place of the pixels survives regridding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raster.georeference import Georeference

ROTATED = Georeference(crs=None, transform=(17.5, 5.25, 100.0, 10.0, -8.75, 200.0))
offsets = st.integers(0, 10_000)


@given(x=offsets, y=offsets, factor=st.sampled_from([1, 2, 4, 8]))
def test_a_pixel_keeps_its_place(x: int, y: int, factor: int) -> None:
    part = ROTATED.regridded(x, y, factor, factor)
    assert _place(part, 3, 2) == pytest.approx(_place(ROTATED, x + 3 * factor, y + 2 * factor), rel=1e-12)


def test_a_power_of_two_scales_the_transform_exactly() -> None:
    assert ROTATED.regridded(0, 0, 4, 4).transform == (70.0, 21.0, 100.0, 40.0, -35.0, 200.0)


def test_control_points_and_spacing_follow() -> None:
    source = Georeference(gcps=((10.0, 20.0, 7.0, 8.0, 9.0),), spacing_um=(0.25, 0.5))
    part = source.regridded(2, 4, 2, 2)
    assert part.gcps == ((4.0, 8.0, 7.0, 8.0, 9.0),)
    assert part.spacing_um == (0.5, 1.0)


def _place(georeference: Georeference, x: float, y: float) -> tuple[float, float]:
    assert georeference.transform is not None
    a, b, c, d, e, f = georeference.transform
    return a * x + b * y + c, d * x + e * y + f

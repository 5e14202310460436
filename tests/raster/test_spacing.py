"""Spacing: known and right, or unknown."""

import math
from contextlib import closing

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS
from rasterio.control import GroundControlPoint

from raster.image import ImageRef, open_image
from raster.spacing import ground_spacing, resolution_spacing, slide_spacing, warn_of_uneven_ground
from tests.shared import DATA

UTM = CRS.from_epsg(32633).to_wkt()
DEGREES = CRS.from_epsg(4326).to_wkt()
MERCATOR = CRS.from_epsg(3857).to_wkt()
MARS = 'GEOGCS["Mars",DATUM["Mars",SPHEROID["Mars",3396190,169.9]],PRIMEM["Zero",0],UNIT["degree",0.0174532925199433]]'


@pytest.mark.parametrize(("value", "known"), [(0.049, False), (0.05, True), (0.25, True), (100, True), (101, False)])
def test_only_believable_micrometres_count(value: float, known: bool) -> None:
    assert (slide_spacing(value, value, "x") is not None) == known
    assert slide_spacing(value, None, "x") is None


@pytest.mark.parametrize("dpi", [72, 96, 100, 150, 300])
@pytest.mark.parametrize("unit", [2, 3])
def test_default_resolutions_are_unknown(dpi: int, unit: int) -> None:
    value = dpi if unit == 2 else dpi / 2.54
    assert resolution_spacing(value, value, unit) is None
    assert resolution_spacing(round(value, 2), round(value, 2), unit) is None


@given(um=st.floats(0.06, 80).filter(lambda um: abs(um - 25_400 / 300) > 1))
def test_both_units_say_the_same(um: float) -> None:
    for unit, length in ((2, 25_400), (3, 10_000)):
        spacing = resolution_spacing(length / um, length / (um * 1.01), unit)
        assert spacing is not None
        assert (spacing.x, spacing.y) == pytest.approx((um, um * 1.01))


@pytest.mark.parametrize(("x", "unit"), [(0, 3), (40_000, 1), (40_000, 0), (-1, 2)])
def test_resolution_without_a_unit_or_value_is_unknown(x: float, unit: int) -> None:
    assert resolution_spacing(x, x, unit) is None


def test_degrees_become_ground_metres_at_the_centre() -> None:
    transform = Affine(0.001, 0, 10, 0, -0.001, 60.5)
    spacing = ground_spacing(1000, 1000, transform, [], DEGREES)
    assert spacing is not None
    assert spacing.unit == "m"
    assert spacing.x == pytest.approx(111_412.9 * math.cos(math.radians(60)) * 0.001, rel=2e-3)
    assert spacing.y == pytest.approx(111.41, rel=2e-3)


def test_web_mercator_is_not_ground_metres() -> None:
    northing = 8_399_737.9  # 60 degrees north
    spacing = ground_spacing(100, 100, Affine(10, 0, 0, 0, -10, northing + 500), [], MERCATOR)
    assert spacing is not None
    assert spacing.x == pytest.approx(5.0, rel=4e-3)


@given(angle=st.floats(0, 360), side=st.floats(0.1, 500), stretch=st.floats(0.5, 2))
def test_rotation_changes_nothing(angle: float, side: float, stretch: float) -> None:
    place = Affine.translation(500_000, 5_000_000) @ Affine.rotation(angle) @ Affine.scale(side, -side * stretch)
    spacing = ground_spacing(10, 10, place, [], UTM)
    assert spacing is not None
    assert (spacing.x, spacing.y) == pytest.approx((side / 0.9996, side * stretch / 0.9996), rel=1e-4)


def test_south_up_has_positive_sides() -> None:
    spacing = ground_spacing(10, 10, Affine(3, 0, 500_000, 0, 3, 5_000_000), [], UTM)
    assert spacing is not None
    assert spacing.y == pytest.approx(3.0012, rel=1e-4)


def test_gcps_count_by_the_affine_fitted_to_them() -> None:
    gcps = [GroundControlPoint(r, c, 500_000 + 2 * c, 5_000_000 - 4 * r, 0) for r in (0, 50, 100) for c in (0, 80)]
    spacing = ground_spacing(80, 100, None, gcps, UTM)
    assert spacing is not None
    assert (spacing.x, spacing.y) == pytest.approx((2.0008, 4.0016), rel=1e-4)
    assert "GCPs" in spacing.origin
    assert ground_spacing(80, 100, None, gcps[:2], UTM) is None


def test_gcps_astride_the_antimeridian_lie_side_by_side() -> None:
    gcps = [GroundControlPoint(r, c, x, 0.001 * r, 0) for r in (0, 100) for c, x in ((0, 179.99), (100, -179.91))]
    spacing = ground_spacing(100, 100, None, gcps, DEGREES)
    assert spacing is not None
    assert (spacing.x, spacing.y) == pytest.approx((111.32, 110.57), rel=1e-3)


@pytest.mark.parametrize(("code", "step"), [(27572, 10.0), (4807, 1e-4)])
def test_grads_are_no_degrees(code: int, step: float) -> None:
    """The French national system counts its angles in grads, and from Paris."""
    crs = CRS.from_epsg(code)
    place = Affine(step, 0, 600_000, 0, -step, 2_200_000) if code == 27572 else Affine(step, 0, 0, 0, -step, 52)
    spacing = ground_spacing(100, 100, place, [], crs.to_wkt())
    assert spacing is not None
    expected = (10.0, 10.0) if code == 27572 else (10.04 * math.cos(math.radians(46.8)), 10.006)
    assert (spacing.x, spacing.y) == pytest.approx(expected, rel=3e-3)


@pytest.mark.parametrize(
    "wkt", [None, MARS, CRS.from_epsg(4978).to_wkt(), 'LOCAL_CS["arbitrary",UNIT["metre",1]]', "nonsense"]
)
def test_no_place_on_earth_is_unknown(wkt: str | None) -> None:
    assert ground_spacing(10, 10, Affine(1, 0, 0, 0, -1, 0), [], wkt) is None


def test_centre_off_the_projection_is_unknown() -> None:
    assert ground_spacing(10, 10, Affine(1e9, 0, 0, 0, -1e9, 0), [], UTM) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("geotiff/cog_hirise_mars.tif", None),
        ("geotiff/rotated.tif", None),
        ("geotiff/OSBS_029.tif", 0.1),
        ("geotiff/spacenet-roads/road_mask_input.tif", 0.243),
        ("slides/boxes.tiff", None),
        ("slides/yb10kx5k.zstd.tiff", None),
        ("photos/tiff_16bit_RGB.tiff", None),
        ("slides/test3-DAPI-2-387.ndpi", 0.2282),
    ],
)
def test_real_files(name: str, expected: float | None) -> None:
    with closing(open_image(ImageRef(DATA / name))) as image:
        spacing = image.info.spacing
    assert (spacing and spacing.x) == (expected if expected is None else pytest.approx(expected, rel=2e-3))


@pytest.mark.parametrize(
    ("transform", "wkt", "says"),
    [
        (Affine(0.1, 0, -180, 0, -0.1, 90), DEGREES, "100% less"),
        (Affine(0.01, 0, 10, 0, -0.01, 60), DEGREES, "20% less"),  # cos 60 over cos 51
        (Affine(10, 0, 500_000, 0, -10, 5_000_000), UTM, None),
        (None, DEGREES, None),
    ],
)
def test_uneven_ground_is_warned_of(transform: Affine | None, wkt: str, says: str | None) -> None:
    found = warn_of_uneven_ground(3600, 1800, transform, [], wkt)
    assert found == [] if says is None else says in found[0]


@pytest.mark.parametrize(
    ("gcps", "wkt", "says"),
    [
        ([(0, 0), (9, 0), (0, 9)], None, "(3) have no system"),
        ([(0, 0), (9, 9), (3, 3)], UTM, "fix no place"),
        ([(3, 3)], UTM, "(1) fix no place"),
        ([(0, 0), (9, 0), (0, 9)], UTM, None),
    ],
)
def test_gcps_that_place_nothing_are_warned_of(gcps: list[tuple[int, int]], wkt: str | None, says: str | None) -> None:
    points = [GroundControlPoint(r, c, 500_000 + 10 * c, 4_500_000 - 10 * r) for c, r in gcps]
    assert (ground_spacing(10, 10, None, points, wkt) is None) == (says is not None)
    found = warn_of_uneven_ground(10, 10, None, points, wkt)
    assert found == [] if says is None else says in found[0]


def test_a_pixel_on_a_pole_covers_nothing() -> None:
    """Grids of weather models have a row on each pole, half of which lies beyond."""
    assert "100% less" in warn_of_uneven_ground(360, 181, Affine(1, 0, -180.5, 0, -1, 90.5), [], DEGREES)[0]

"""Ground control points: GDAL's own polynomial where it has one, a lower order or none where it has not."""

import numpy as np
import pytest
from pyproj import CRS
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer

from raster.gcps import Polynomial, turn_of
from raster.georeference import GroundPoint

DEGREES = 360.0


def points_at(pixels: list[tuple[float, float]], bend: float = 0.0) -> list[GroundPoint]:
    return [
        (c, r, 500_000 + 10 * c + 3 * r + bend * c * r, 4.5e6 - 9 * r + 2 * c + bend * c * c, 0.0) for c, r in pixels
    ]


def corners(west: float, east: float) -> list[GroundPoint]:
    return [(0, 0, west, 52, 0), (300, 0, east, 52, 0), (300, 220, east, 51.8, 0), (0, 220, west, 51.8, 0)]


@pytest.mark.parametrize("count", [3, 4, 5, 6, 9, 30])
def test_it_is_the_polynomial_of_gdal(count: int) -> None:
    pixels = np.random.default_rng(count).uniform(0, 1000, (count, 2))
    points = points_at([(float(c), float(r)) for c, r in pixels], bend=1e-3)
    polynomial = Polynomial.fitted(points, None)
    assert polynomial is not None
    columns, rows = np.random.default_rng(0).uniform(0, 1000, (2, 50))
    gdal = GCPTransformer([GroundControlPoint(col=c, row=r, x=x, y=y, z=z) for c, r, x, y, z in points])
    assert np.allclose(polynomial(columns, rows), gdal.xy(rows, columns, offset="ul"), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "pixels", [[(c, r) for r in (0, 220) for c in (0, 150, 300)], [(c, 0) for c in range(9)] + [(0, 9)]]
)
def test_two_lines_of_points_fix_the_first_order(pixels: list[tuple[float, float]]) -> None:
    polynomial = Polynomial.fitted(points_at(pixels), None)
    assert polynomial is not None
    x, y = polynomial(np.array([70.0]), np.array([30.0]))
    assert (x[0], y[0]) == (pytest.approx(500_790, abs=1e-6), pytest.approx(4_499_870, abs=1e-6))


@pytest.mark.parametrize(
    "points",
    [
        points_at([(1, 1)]),
        points_at([(0, 0), (300, 220)]),
        points_at([(0, 0), (100, 100), (200, 200), (50, 50)]),
        points_at([(10, 10)] * 7),
        [(c, r, 5.0, 40.0, 0.0) for c in (0, 9) for r in (0, 9)],
        [(c, r, 5.0 + c + r, 40.0 + c + r, 0.0) for c in (0, 9) for r in (0, 9)],
    ],
    ids=["one", "two", "line", "coincident", "one place", "ground on a line"],
)
def test_what_fixes_no_place_is_none(points: list[GroundPoint]) -> None:
    assert Polynomial.fitted(points, None) is None


def test_the_rounding_of_a_mean_is_no_place() -> None:
    pixels = np.random.default_rng(0).uniform(0, 2000, (25, 2)).tolist()
    assert Polynomial.fitted([(c, r, 487645.6046650042, 3360257.272523258, 0.0) for c, r in pixels], None) is None


def test_points_astride_the_antimeridian_lie_side_by_side() -> None:
    for points in (corners(179.9, -179.8), corners(179.9, 180.2)):
        polynomial = Polynomial.fitted(points, DEGREES)
        assert polynomial is not None
        x, _ = polynomial(np.array([150.0]), np.array([110.0]))
        assert x[0] == pytest.approx(180.05)


@pytest.mark.parametrize("west", [-180.0, -179.5])
def test_points_of_the_whole_earth_are_left_alone(west: float) -> None:
    world = [(c, r, x, y, 0.0) for c, x in ((0.5, west), (359.5, -west)) for r, y in ((0.5, 89.5), (179.5, -89.5))]
    middle = [(180.0, r, 0.0, y, 0.0) for r, y in ((0.5, 89.5), (179.5, -89.5))]
    for points in (world, world + middle):
        polynomial = Polynomial.fitted(points, DEGREES)
        assert polynomial is not None
        assert polynomial(np.array([180.0]), np.array([90.0]))[0][0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("code", "turn"), [(4326, 360), (4807, 400), (32633, None), (4978, None)])
def test_a_turn_is_told_in_the_units_of_the_system(code: int, turn: float | None) -> None:
    assert turn_of(CRS.from_epsg(code)) == (None if turn is None else pytest.approx(turn))

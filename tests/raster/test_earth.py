"""Polygons on maps that are round: every pixel lies in the polygon of its region, whatever the region goes round."""

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.features import shapes

from raster.earth import EarthPlacement
from raster.geometry import Size
from raster.georeference import Georeference
from raster.globe import on_globe

POLAR = CRS.from_epsg(3413)
GLOBAL = CRS.from_user_input("+proj=eqearth")


def blocks(side: int, cell: int, seed: int = 0) -> NDArray[np.uint8]:
    """A square of cells, each of class 0 or 1."""
    cells = np.random.default_rng(seed).integers(0, 2, (side // cell + 1, side // cell + 1))
    return np.kron(cells.astype(np.uint8), np.ones((cell, cell), np.uint8))[:side, :side]


def centred(pixel: float, side: int) -> tuple[float, ...]:
    """The transform of a square image whose middle is the origin of the system."""
    return (pixel, 0.0, -pixel * side / 2, 0.0, -pixel, pixel * side / 2)


def placed(mask: NDArray[np.uint8], place: Georeference) -> list[tuple[int, shapely.MultiPolygon]]:
    """The regions of a mask in degrees, by value."""
    placement = EarthPlacement(place, Size(mask.shape[1], mask.shape[0]))
    return [
        (int(value), shapely.MultiPolygon(placement.place(shapely.geometry.shape(shape))))
        for shape, value in shapes(mask, mask=mask != 255)
    ]


def assert_every_pixel_is_in_its_region(mask: NDArray[np.uint8], place: Georeference) -> None:
    found = placed(mask, place)
    assert all(shape.is_valid for _, shape in found)
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]].reshape(2, -1)
    a, _, c, _, e, f = place.transform or (0.0,) * 6
    to_degrees = Transformer.from_crs(place.crs, "OGC:CRS84", always_xy=True)
    # Not in the middle, which a meridian may cross.
    longitude, latitude = to_degrees.transform(a * (columns + 0.51) + c, e * (rows + 0.47) + f)
    longitude = (longitude + 180) % 360 - 180
    for value, x, y in zip(mask.ravel().tolist(), longitude, latitude, strict=True):
        if np.isfinite(x):
            hit = [region for region, shape in found if shape.covers(shapely.Point(x, y))]
            assert hit == ([] if value == 255 else [value]), (x, y)


@pytest.mark.parametrize("west", [-180, 0, -179.5, -90.25, -180.0000001])
@pytest.mark.parametrize("content", ["one", "bands", "noise"])
def test_the_whole_earth_may_begin_at_any_meridian(west: float, content: str) -> None:
    mask = np.ones((18, 36), np.uint8)
    if content == "bands":
        mask[6:9], mask[10:12, 5:31], mask[7, 18:21] = 2, 255, 3
    elif content == "noise":
        mask[:] = np.random.default_rng(0).integers(0, 3, mask.shape)
    place = Georeference(crs=CRS.from_epsg(4326).to_wkt(), transform=(10.0, 0.0, west, 0.0, -10.0, 90.0))
    assert_every_pixel_is_in_its_region(mask, place)


@pytest.mark.parametrize(
    ("rows", "columns", "value"),
    [
        (slice(0, 0), slice(0, 0), 1),
        (slice(9, 12), slice(9, 12), 2),
        (slice(9, 12), slice(9, 12), 255),
        (slice(2, 4), slice(2, 4), 2),
        (slice(0, 21), slice(11, 21), 2),
        (slice(0, 11), slice(10, 11), 255),
    ],
)
def test_regions_and_holes_around_a_pole(rows: slice, columns: slice, value: int) -> None:
    mask = np.ones((21, 21), np.uint8)
    mask[rows, columns] = value
    transform = (1000.0, 0.0, -10_370.0, 0.0, -1000.0, 10_410.0)
    assert_every_pixel_is_in_its_region(mask, Georeference(crs=CRS.from_epsg(3413).to_wkt(), transform=transform))


@pytest.mark.parametrize("content", ["one", "halves", "spots"])
def test_of_a_full_disk_what_lies_beyond_the_limb_is_cut_away(content: str) -> None:
    crs = CRS.from_proj4("+proj=geos +h=35786023 +lon_0=-75 +sweep=x +ellps=GRS80")
    edge, side = 5_434_894.885, 100
    pixel = 2 * edge / side
    place = Georeference(crs=crs.to_wkt(), transform=(pixel, 0.0, -edge, 0.0, -pixel, edge))
    mask = np.zeros((side, side), np.uint8)
    if content == "halves":
        mask[:, 50:] = 1
    elif content == "spots":
        mask[40:60, 45:55], mask[70:, 40:60] = 1, 2
    found = placed(mask, place)
    assert [value for value, shape in found if shape.is_empty] == []
    assert all(shape.is_valid for _, shape in found)
    # Seven eighths of the disk's radius and less; nearer to the limb a pixel may lie across it.
    rows, columns = np.mgrid[:side, :side].reshape(2, -1)
    inner = np.hypot(rows + 0.5 - 50, columns + 0.5 - 50) < 42
    to_degrees = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    x, y = to_degrees.transform(pixel * (columns[inner] + 0.51) - edge, edge - pixel * (rows[inner] + 0.47))
    for value, point in zip(mask.ravel()[inner].tolist(), shapely.points(x, y), strict=True):
        assert [region for region, shape in found if shape.covers(point)] == [value]


def test_a_region_that_winds_round_a_pole_is_closed_at_the_corner_next_to_it() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[13:17, 13:23], mask[4:17, 21:23], mask[4:6, 10:23] = 1, 1, 1
    assert_every_pixel_is_in_its_region(mask, Georeference(crs=POLAR.to_wkt(), transform=centred(100_000, 30)))


@pytest.mark.parametrize("columns", [slice(10, 20), slice(10, 15), slice(15, 30)])
def test_a_pole_may_lie_exactly_on_a_side_or_a_corner(columns: slice) -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[15:, columns] = 1
    assert_every_pixel_is_in_its_region(mask, Georeference(crs=POLAR.to_wkt(), transform=centred(100_000, 30)))


@pytest.mark.parametrize("code", [6931, 6932, 3413])
@pytest.mark.parametrize("content", ["one", "blocks"])
def test_a_region_that_reaches_beyond_the_equator_keeps_its_pole(code: int, content: str) -> None:
    """EASE-Grid 2.0 reaches from one pole nearly to the other: where a ring lies does not say what it goes round."""
    mask = np.ones((25, 25), np.uint8) if content == "one" else blocks(25, 4)
    assert_every_pixel_is_in_its_region(
        mask, Georeference(crs=CRS.from_epsg(code).to_wkt(), transform=centred(720_000, 25))
    )


def test_a_region_around_another_that_holds_the_pole_is_not_lost() -> None:
    """They touch in a corner, from which shapely makes a collection."""
    mask = blocks(1200, 97, seed=3)
    found = placed(mask, Georeference(crs=POLAR.to_wkt(), transform=centred(500, 1200)))
    assert [value for value, shape in found if shape.is_empty] == []


@pytest.mark.parametrize(
    ("crs", "transform", "side"),
    [
        (POLAR, centred(500, 400), 400),
        (CRS.from_epsg(3031), centred(15_000, 400), 400),
        (CRS.from_epsg(3035), (10_000.0, 0.0, 2_500_000.0, 0.0, -10_000.0, 5_500_000.0), 400),
        (GLOBAL, centred(75_000, 200), 200),
    ],
)
def test_no_side_leaves_its_place(crs: CRS, transform: tuple[float, ...], side: int) -> None:
    """Between two corners in degrees lie the pixels between them; the eighth allows for what lies between the tests."""
    a, _, c, _, e, f = transform
    to_system = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    for _, shape in placed(blocks(side, 97, seed=2), Georeference(crs=crs.to_wkt(), transform=transform)):
        for ring in (ring for part in shape.geoms for ring in (part.exterior, *part.interiors)):
            corners = shapely.get_coordinates(ring)
            for share in (0.25, 0.5, 0.75):
                longitude, latitude = (corners[:-1] + share * np.diff(corners, axis=0)).T
                x, y = to_system.transform(longitude, latitude)
                columns, rows = (x - c) / a, (y - f) / e
                # All sides of pixels are upright or level; the cut to the pole and at the antimeridian is neither.
                off = np.minimum(abs(columns - columns.round()), abs(rows - rows.round()))
                inside = (abs(longitude) < 179.9) & (np.diff(corners[:, 0]) != 0)
                assert off[inside].max(initial=0) < 0.13


@pytest.mark.parametrize("west", [-180.5, -0.5])
@pytest.mark.parametrize("code", [4326, 4267])
def test_rows_on_the_poles_end_there(west: float, code: int) -> None:
    """As of weather models: 181 rows, the first and the last of which reach half a degree beyond."""
    mask = np.ones((181, 36), np.uint8)
    mask[:3, 5:20] = 0
    place = Georeference(crs=CRS.from_epsg(code).to_wkt(), transform=(10.0, 0.0, west, 0.0, -1.0, 90.5))
    found = placed(mask, place)
    assert shapely.union_all([shape for _, shape in found]).bounds == pytest.approx((-180, -90, 180, 90), abs=1e-3)
    assert sum(shape.area for _, shape in found) == pytest.approx(360 * 180, rel=1e-4)
    assert all(shape.is_valid for _, shape in found)


def test_control_points_astride_the_antimeridian_are_cut_there() -> None:
    gcps = tuple((c, r, x, y, 0.0) for c, x in ((0.0, 179.9), (30.0, -179.8)) for r, y in ((0.0, 52.0), (20.0, 51.8)))
    [(_, shape)] = placed(np.zeros((20, 30), np.uint8), Georeference(crs=CRS.from_epsg(4326).to_wkt(), gcps=gcps))
    assert sorted(part.bounds for part in shape.geoms) == [
        pytest.approx((-180, 51.8, -179.8, 52)),
        pytest.approx((179.9, 51.8, 180, 52)),
    ]


@pytest.mark.parametrize("crs", [GLOBAL, CRS.from_user_input("+proj=sinu +R=6371007.181")])
def test_pixels_beyond_the_edge_of_a_map_are_not_drawn_on_its_other_side(crs: CRS) -> None:
    mask = blocks(200, 37)
    found = placed(mask, Georeference(crs=crs.to_wkt(), transform=centred(200_000, 200)))
    together = sum(shape.area for _, shape in found)
    assert together == pytest.approx(shapely.union_all([shape for _, shape in found]).area, rel=1e-3)
    assert together == pytest.approx(360 * 180, rel=0.1)


@pytest.mark.parametrize("west", [-180.0, 0.0])
def test_rotated_longitudes_may_be_counted_from_any_meridian(west: float) -> None:
    rotated = CRS.from_user_input("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +R=6371229")
    transform = (10.0, 0.0, west, 0.0, -10.0, 90.0)
    found = placed(blocks(18, 5).repeat(2, axis=1), Georeference(crs=rotated.to_wkt(), transform=transform))
    assert sum(shape.area for _, shape in found) == pytest.approx(360 * 180, rel=1e-2)


def test_web_mercator_goes_on_beyond_the_antimeridian() -> None:
    place = Georeference(crs=CRS.from_epsg(3857).to_wkt(), transform=(2000.0, 0.0, 19_737_508.34, 0.0, -2000.0, -1.8e6))
    [(_, shape)] = placed(np.zeros((20, 300), np.uint8), place)
    assert len(shape.geoms) == 2
    assert shape.area == pytest.approx(600_000 / 111_319.49 * (shape.bounds[3] - shape.bounds[1]), rel=1e-6)


def test_a_hole_lies_in_its_region_whichever_way_both_are_counted() -> None:
    """A region that begins on the antimeridian begins at 180 degrees, and a hole in it at -178."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], np.float64)
    found = on_globe(np.array([180, 0]) + 10 * corners, [np.array([-178, 2]) + 3 * corners[::-1]])
    assert found.equals(shapely.box(-180, 0, -170, 10).difference(shapely.box(-178, 2, -175, 5)))

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

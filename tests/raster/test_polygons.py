"""Polygons as images: the pixel-centre rule against points in polygons, reduced levels, places on Earth."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from foveate.errors import ImageUnreadable
from foveate.schema import ImageInfo
from raster.array import ArrayImage
from raster.earth import EarthPlacement
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.image import ImageRef, open_image
from raster.polygons import PolygonImage, Polygons, is_geojson, read_polygons
from tests.shared import DATA


def like(width: int, height: int) -> ImageInfo:
    return ArrayImage.of([np.zeros((height, width, 1), np.uint8)]).info


def stars(seed: int, count: int, side: int) -> list[shapely.Polygon]:
    """Star-shaped polygons with corners off the pixel grid, some over the border."""
    random = np.random.default_rng(seed)
    turns = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    found = []
    for x, y in random.uniform(0, side, (count, 2)):
        radii = random.uniform(3, 60, 9)
        found.append(shapely.Polygon(np.stack([x + radii * np.cos(turns), y + radii * np.sin(turns)], axis=1)))
    return found


@given(st.integers(0, 200), st.integers(0, 900), st.integers(0, 900))
def test_a_pixel_belongs_to_the_last_polygon_that_holds_its_centre(seed: int, x: int, y: int) -> None:
    shapes = stars(seed, 12, 300)
    numbers = [1 + k % 3 for k in range(12)]
    image = PolygonImage(Polygons(tuple(shapes), ("",) * 12), numbers, 9, like(1200, 1200))
    region = Region(x % 280, y % 280, 40, 30)
    seen = image.read(0, region).values[..., 0]
    columns, rows = np.meshgrid(np.arange(40) + region.x + 0.5, np.arange(30) + region.y + 0.5)
    expected = np.full((30, 40), 9, np.uint8)
    for shape, number in zip(shapes, numbers, strict=True):
        expected[shapely.contains_xy(shape, columns, rows)] = number
    assert np.array_equal(seen, expected)


def test_reduced_levels_hold_what_lies_at_their_centres() -> None:
    shapes = stars(1, 40, 2500)
    image = PolygonImage(Polygons(tuple(shapes), ("",) * 40), [1] * 40, 0, like(2500, 1900))
    assert [(level.width, level.height) for level in image.info.levels] == [
        (2500, 1900),
        (1250, 950),
        (625, 475),
        (313, 238),
    ]
    coarse = image.read(2, Region(0, 0, 625, 475)).values[..., 0]
    columns, rows = np.meshgrid(np.arange(625) * 4 + 2.0, np.arange(475) * 4 + 2.0)
    assert np.array_equal(coarse, shapely.contains_xy(shapely.union_all(shapes), columns, rows))


def test_numbers_of_many_objects_fit() -> None:
    squares = [shapely.box(k % 300, k // 300, k % 300 + 1, k // 300 + 1) for k in range(70_000)]
    image = PolygonImage(Polygons(tuple(squares), ("",) * 70_000), list(range(1, 70_001)), 0, like(300, 240), "int32")
    seen = image.read(0, Region(0, 200, 300, 40)).values[..., 0]
    assert np.array_equal(seen.ravel()[:10_000], np.arange(60_001, 70_001)) and (seen.ravel()[10_000:] == 0).all()


@pytest.mark.parametrize("name", ["RGB.byte.tif", "cog_gcps_ovr.tif", "inverted_lat.tif", "cog_dateline.tif"])
def test_polygons_that_were_written_in_degrees_come_back_to_their_pixels(tmp_path: Path, name: str) -> None:
    """By transform, control points, south-up and over the antimeridian: the inverse of how regions are placed."""
    with closing(open_image(ImageRef(DATA / "geotiff" / name))) as image:
        info = image.info
    x, y = info.width // 3, info.height // 3
    placement = EarthPlacement(Georeference.of(info, info.spacing), Size(info.width, info.height))
    features: list[dict[str, Any]] = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(part), "properties": {"class": "a"}}
        for part in placement.place(shapely.box(x, y, x + 60, y + 40))
    ]
    path = tmp_path / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert is_geojson(path)
    polygons = read_polygons(path, info)
    seen = PolygonImage(polygons, [1] * len(features), 0, info).read(0, Region(x - 20, y - 20, 100, 80)).values[..., 0]
    expected = np.zeros((80, 100), np.uint8)
    expected[20:60, 20:80] = 1
    assert (seen != expected).mean() < 0.01


def test_polygons_off_the_map_are_named(tmp_path: Path) -> None:
    """Pixel coordinates on a georeferenced image are no degrees."""
    with closing(open_image(ImageRef(DATA / "geotiff/RGB.byte.tif"))) as image:
        info = image.info
    corners = [[100, 200], [300, 200], [300, 400], [100, 200]]
    path = tmp_path / "pixels.geojson"
    geometry = {"type": "Polygon", "coordinates": [corners]}
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {"class": "a"}}))
    with pytest.raises(ImageUnreadable, match="feature 0 cannot be placed") as caught:
        read_polygons(path, info)
    assert "RFC 7946" in caught.value.hint


@pytest.mark.parametrize("properties", [None, [], ["a"], "a", {}, {"class": ""}, {"class": 3}])
def test_a_polygon_without_a_class_is_named(tmp_path: Path, properties: Any) -> None:
    path = tmp_path / "bare.geojson"
    geometry = shapely.geometry.mapping(shapely.box(0, 0, 20, 20))
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": properties}))
    with pytest.raises(ImageUnreadable, match="feature 0 has no class"):
        read_polygons(path, like(90, 80))


def test_polygons_of_another_image_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.geojson"
    geometry = shapely.geometry.mapping(shapely.box(100, 0, 120, 20))
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {"class": "a"}}))
    with pytest.raises(ImageUnreadable, match="none of its 1 polygons lies on array of 90 x 80 px"):
        read_polygons(path, like(90, 80))
    assert read_polygons(path, like(101, 80)).names == ("a",)

"""regions.geojson: what QuPath and RFC 7946 ask for, from a process of its own."""

import json
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.crs import CRS
from scipy import ndimage

from foveate.errors import DiskFull, Dismissed, Unexpected
from foveate.schema import ClassCard, SpacingInfo
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.placement import on_earth
from raster.regions import RegionsJob, write_regions, write_regions_in_process
from raster.write import MaskWriter
from tests.shared import DATA

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

GEOTIFFS = DATA / "geotiff"
CLASSES = (ClassCard(value=0, name="stroma", color=(1, 2, 3)), ClassCard(value=1, name="gland", color=(40, 50, 60)))
MICROMETRES = SpacingInfo(x=0.5, y=0.5, unit="um", origin="test")


def job_of(tmp_path: Path, labels: NDArray[np.uint8], **changes: Any) -> RegionsJob:
    size = Size(labels.shape[1], labels.shape[0])
    with MaskWriter(tmp_path, size, CLASSES, Georeference()) as writer:
        writer.write(Region.of(size), labels)
        writer.finish(tmp_path / "mask.tif")
    values = {"region": Region.of(size), "minimum_area": 1, "classes": CLASSES} | changes
    return RegionsJob(mask=tmp_path / "mask.tif", out=tmp_path / "regions.geojson", **values)


def blobs(size: Size, seed: int = 0) -> NDArray[np.uint8]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(size.shape), 4)
    return (noise > 0).astype(np.uint8)


def collection(job: RegionsJob) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(job.out.read_text(), parse_constant=pytest.fail)
    return content


def shapes(features: Sequence[dict[str, Any]]) -> list[shapely.Geometry]:
    return [shapely.geometry.shape(feature["geometry"]) for feature in features]


def georeference_of(path: Path) -> tuple[Georeference, Size]:
    with rasterio.open(path) as source:
        points, points_crs = source.gcps
        crs = source.crs or points_crs
        place = Georeference(
            crs=crs.to_wkt() if crs else None,
            transform=None if points else tuple(source.transform)[:6],  # type: ignore[arg-type]
            gcps=tuple((p.col, p.row, p.x, p.y, p.z) for p in points),
        )
        return place, Size(source.width, source.height)


def test_a_slide_follows_qupath(tmp_path: Path) -> None:
    labels = blobs(Size(300, 200))
    labels[:20, :20] = 255
    job = job_of(tmp_path, labels, spacing=MICROMETRES, frame="openslide-canvas", bounds=(1000, 2000, 300, 200))
    summary = write_regions(job)
    content = collection(job)
    assert content["foveate"]["frame"] == "openslide-canvas pixels, origin top left, y down"
    assert content["foveate"]["bounds_offset_px"] == [1000, 2000]
    assert content["foveate"]["minimum_area_px"] == 1
    assert summary.regions == len(content["features"])
    assert "crs" not in content
    ids = [feature["id"] for feature in content["features"]]
    assert len(set(ids)) == len(ids)
    for value in (0, 1):
        features = [feature for feature in content["features"] if feature["properties"]["value"] == value]
        assert sum(geometry.area for geometry in shapes(features)) == (labels == value).sum()
    properties = content["features"][0]["properties"]
    card = CLASSES[properties["value"]]
    assert properties["objectType"] == "annotation"
    assert properties["classification"] == {"name": card.name, "color": list(card.color)}
    assert properties["measurements"]["Area µm^2"] == properties["measurements"]["Area px^2"] / 4
    assert (properties["area"], properties["area_unit"]) == (properties["measurements"]["Area µm^2"], "um2")


def test_a_reduced_mask_of_a_region_lies_in_level_0_pixels(tmp_path: Path) -> None:
    labels = np.zeros((3, 3), dtype=np.uint8)
    job = job_of(tmp_path, labels, region=Region(100, 50, 11, 9), mask_downsample=4)
    write_regions(job)
    [geometry] = shapes(collection(job)["features"])
    assert geometry.equals(shapely.box(100, 50, 111, 59))
    assert collection(job)["features"][0]["properties"]["area"] == 99


def test_a_region_on_mars_stays_in_pixels(tmp_path: Path) -> None:
    place, _ = georeference_of(GEOTIFFS / "cog_hirise_mars.tif")
    assert not on_earth(place)
    job = job_of(tmp_path, np.zeros((20, 30), dtype=np.uint8), georeference=place)
    write_regions(job)
    assert shapes(collection(job)["features"])[0].equals(shapely.box(0, 0, 30, 20))


@pytest.mark.parametrize(
    "name",
    ["OSBS_029.tif", "cogeo.tif", "inverted_lat.tif", "cog_gcps_ovr.tif", "rgba_geotiff.tiff", "cog_dateline.tif"],
)
def test_on_earth_follows_rfc_7946(tmp_path: Path, name: str) -> None:
    place, size = georeference_of(GEOTIFFS / name)
    shown = Size(min(size.width, 800), min(size.height, 500))
    corner = Region(size.width - shown.width, 0, shown.width, shown.height)
    job = job_of(tmp_path, blobs(shown), georeference=place, region=corner, minimum_area=9)
    write_regions(job)
    content = collection(job)
    geometries = shapes(content["features"])
    assert geometries
    assert "longitude" in content["foveate"]["frame"]
    for geometry in geometries:
        assert geometry.is_valid
        parts = shapely.get_parts(geometry)
        assert all(part.exterior.is_ccw and not any(ring.is_ccw for ring in part.interiors) for part in parts)
        west, south, east, north = geometry.bounds
        assert -180 <= west < east <= 180
        assert -90 <= south < north <= 90
        assert east - west < 180 or geometry.geom_type == "MultiPolygon" or name == "inverted_lat.tif"
        coordinates = shapely.get_coordinates(geometry)
        assert np.array_equal(coordinates, np.round(coordinates, 7))


def test_a_scene_lies_where_its_pixels_lie(tmp_path: Path) -> None:
    """A 3 km square at UTM's central meridian: its place and its size on the ground."""
    wkt = CRS.from_epsg(32632).to_wkt()
    place = Georeference(crs=wkt, transform=(10.0, 0.0, 500000.0, 0.0, -10.0, 5_000_000.0))
    job = job_of(tmp_path, np.zeros((300, 300), dtype=np.uint8), georeference=place)
    write_regions(job)
    [geometry] = shapes(collection(job)["features"])
    assert geometry.bounds[0] == pytest.approx(9.0, abs=1e-7)
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(geometry)
    assert area == pytest.approx(3000**2 / 0.9996**2, rel=1e-4)


def test_the_antimeridian_is_cut(tmp_path: Path) -> None:
    wkt = CRS.from_epsg(4326).to_wkt()
    place = Georeference(crs=wkt, transform=(0.01, 0.0, 179.9, 0.0, -0.01, 10.0))
    job = job_of(tmp_path, np.zeros((10, 40), dtype=np.uint8), georeference=place)
    write_regions(job)
    [geometry] = shapes(collection(job)["features"])
    assert sorted(part.bounds for part in geometry.geoms) == [
        pytest.approx((-180, 9.9, -179.7, 10)),
        pytest.approx((179.9, 9.9, 180, 10)),
    ]


def test_small_regions_are_dropped_and_counted(tmp_path: Path) -> None:
    labels = np.full((30, 30), 255, dtype=np.uint8)
    labels[2:6, 2:6] = 1
    labels[20, 20:23] = 1
    job = job_of(tmp_path, labels, minimum_area=4)
    summary = write_regions(job)
    assert (summary.regions, summary.dropped_pixels) == (1, 3)
    assert collection(job)["foveate"]["dropped_px"] == 3


def test_noise_does_not_explode(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (400, 350), dtype=np.uint8)
    job = job_of(tmp_path, labels, maximum_regions=50)
    summary = write_regions(job)
    features = collection(job)["features"]
    assert 30 < len(features) <= 50
    assert summary.minimum_area > 1
    areas = [feature["properties"]["measurements"]["Area px^2"] for feature in features]
    assert min(areas) >= summary.minimum_area
    assert sum(areas) == labels.size - summary.dropped_pixels
    assert sum(geometry.area for geometry in shapes(features)) == sum(areas)


def test_the_child_process_writes_the_same_bytes(tmp_path: Path) -> None:
    job = job_of(tmp_path, blobs(Size(200, 100)))
    summary = write_regions(job)
    written = job.out.read_bytes()
    job.out.unlink()
    assert write_regions_in_process(job) == summary
    assert job.out.read_bytes() == written
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mask.tif", "mask.tif.aux.xml", "regions.geojson"]


def test_a_full_disk_crosses_the_process(tmp_path: Path) -> None:
    job = job_of(tmp_path, blobs(Size(400, 300)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DiskFull, match=r"regions\.geojson"):
            write_regions_in_process(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mask.tif", "mask.tif.aux.xml"]


def test_a_crash_of_the_child_is_an_error(tmp_path: Path) -> None:
    job = job_of(tmp_path, np.zeros((5, 5), dtype=np.uint8))
    job.mask.unlink()
    with pytest.raises(Unexpected, match=r"mask\.tif"):
        write_regions_in_process(job)


def test_the_child_is_ended_when_the_check_raises(tmp_path: Path) -> None:
    job = job_of(tmp_path, blobs(Size(3000, 3000)))

    def stop() -> None:
        raise Dismissed("cancelled", hint="submit it again")

    with pytest.raises(Dismissed):
        write_regions_in_process(job, stop)
    assert not job.out.exists()


def test_nothing_examined_is_an_empty_collection(tmp_path: Path) -> None:
    job = job_of(tmp_path, np.full((7, 9), 255, dtype=np.uint8))
    assert write_regions(job).regions == 0
    assert collection(job)["features"] == []

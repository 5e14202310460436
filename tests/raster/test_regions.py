"""regions.geojson: what QuPath and RFC 7946 ask for, from a process of its own."""

import gc
import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.crs import CRS
from scipy import ndimage

from foveate.errors import DiskFull, Dismissed, Unexpected, WorkerLost
from foveate.schema import ClassCard, SpacingInfo
from raster.earth import EarthPlacement, on_earth
from raster.features import RegionsJob
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.regions import RegionsProcess, RegionsSummary, stand_by, write_regions
from tests.jobs.test_valkey import gone
from tests.shared import DATA

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

GEOTIFFS = DATA / "geotiff"
CLASSES = (ClassCard(value=0, name="stroma", color=(1, 2, 3)), ClassCard(value=1, name="gland", color=(40, 50, 60)))
MICROMETRES = SpacingInfo(x=0.5, y=0.5, unit="um", origin="test")


@dataclass(frozen=True)
class Case:
    """A mask and what is to be done with it."""

    labels: NDArray[np.uint8]
    job: RegionsJob

    def strips(self, height: int = 100) -> Iterator[NDArray[np.uint8]]:
        return (self.labels[y : y + height] for y in range(0, len(self.labels), height))

    def write(self) -> RegionsSummary:
        return write_regions(self.job, self.strips())

    def write_in_process(self, height: int = 100) -> RegionsSummary:
        with RegionsProcess(self.job) as process:
            for rows in self.strips(height):
                process.write(rows)
            process.end()
            return process.summary()

    def collection(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.job.out.read_text(), parse_constant=pytest.fail)
        return content


def case_of(tmp_path: Path, labels: NDArray[np.uint8], **changes: Any) -> Case:
    values: dict[str, Any] = {
        "region": Region(0, 0, labels.shape[1], labels.shape[0]),
        "minimum_area": 1,
        "classes": CLASSES,
    } | changes
    return Case(labels, RegionsJob(out=tmp_path / "regions.geojson", **values))


def blobs(size: Size, seed: int = 0) -> NDArray[np.uint8]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(size.shape), 4)
    return np.asarray(noise > 0, dtype=np.uint8)


def shapes(features: Sequence[dict[str, Any]]) -> list[shapely.Geometry]:
    return [shapely.geometry.shape(feature["geometry"]) for feature in features]


def georeference_of(path: Path) -> tuple[Georeference, Size]:
    with rasterio.open(path) as source:
        points, points_crs = source.gcps
        crs = source.crs or points_crs
        place = Georeference(
            crs=crs.to_wkt() if crs else None,
            transform=None if points else tuple(source.transform)[:6],
            gcps=tuple((p.col, p.row, p.x, p.y, p.z) for p in points),
        )
        return place, Size(source.width, source.height)


def test_a_slide_follows_qupath(tmp_path: Path) -> None:
    labels = blobs(Size(300, 200))
    labels[:20, :20] = 255
    case = case_of(tmp_path, labels, spacing=MICROMETRES, frame="openslide-canvas", bounds=(1000, 2000, 300, 200))
    summary = case.write()
    content = case.collection()
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
    case = case_of(tmp_path, labels, region=Region(100, 50, 11, 9), mask_downsample=4)
    case.write()
    [geometry] = shapes(case.collection()["features"])
    assert geometry.equals(shapely.box(100, 50, 111, 59))
    assert case.collection()["features"][0]["properties"]["area"] == 99


def test_a_region_on_mars_stays_in_pixels(tmp_path: Path) -> None:
    place, _ = georeference_of(GEOTIFFS / "cog_hirise_mars.tif")
    assert not on_earth(place)
    case = case_of(tmp_path, np.zeros((20, 30), dtype=np.uint8), georeference=place)
    case.write()
    assert shapes(case.collection()["features"])[0].equals(shapely.box(0, 0, 30, 20))


@pytest.mark.parametrize(
    ("columns", "crs", "frame"),
    [
        ((0, 15, 30), 32633, "longitude"),  # two lines of points: the first order
        ((7,), 32633, "pixels"),
        ((0, 30), None, "pixels"),
        ((0, 30), 4978, "pixels"),  # geocentric
    ],
)
def test_control_points_never_end_a_run(tmp_path: Path, columns: tuple[int, ...], crs: int | None, frame: str) -> None:
    gcps = tuple((float(c), float(r), 500_000.0 + 10 * c, 4_500_000.0 - 10 * r, 0.0) for r in (0, 20) for c in columns)
    place = Georeference(crs=None if crs is None else CRS.from_epsg(crs).to_wkt(), gcps=gcps)
    case = case_of(tmp_path, np.zeros((20, 30), dtype=np.uint8), georeference=place)
    summary = case.write_in_process()
    assert (summary.regions, summary.dropped_pixels) == (1, 0)
    assert frame in case.collection()["foveate"]["frame"]
    [geometry] = shapes(case.collection()["features"])
    assert geometry.equals(shapely.box(0, 0, 30, 20)) == (frame == "pixels")


@pytest.mark.parametrize(
    "name",
    ["OSBS_029.tif", "cogeo.tif", "inverted_lat.tif", "cog_gcps_ovr.tif", "rgba_geotiff.tiff", "cog_dateline.tif"],
)
def test_on_earth_follows_rfc_7946(tmp_path: Path, name: str) -> None:
    place, size = georeference_of(GEOTIFFS / name)
    shown = Size(min(size.width, 800), min(size.height, 500))
    corner = Region(size.width - shown.width, 0, shown.width, shown.height)
    case = case_of(tmp_path, blobs(shown), georeference=place, region=corner, minimum_area=9)
    case.write()
    content = case.collection()
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
    case = case_of(tmp_path, np.zeros((300, 300), dtype=np.uint8), georeference=place)
    assert not case.write().beyond_map
    [geometry] = shapes(case.collection()["features"])
    assert geometry.bounds[0] == pytest.approx(9.0, abs=1e-7)
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(geometry)
    assert area == pytest.approx(3000**2 / 0.9996**2, rel=1e-4)


def test_the_antimeridian_is_cut(tmp_path: Path) -> None:
    wkt = CRS.from_epsg(4326).to_wkt()
    place = Georeference(crs=wkt, transform=(0.01, 0.0, 179.9, 0.0, -0.01, 10.0))
    case = case_of(tmp_path, np.zeros((10, 40), dtype=np.uint8), georeference=place)
    assert case.write().beyond_map
    [geometry] = shapes(case.collection()["features"])
    assert sorted(part.bounds for part in geometry.geoms) == [
        pytest.approx((-180, 9.9, -179.7, 10)),
        pytest.approx((179.9, 9.9, 180, 10)),
    ]


def test_small_regions_are_dropped_and_counted(tmp_path: Path) -> None:
    labels = np.full((30, 30), 255, dtype=np.uint8)
    labels[2:6, 2:6] = 1
    labels[20, 20:23] = 1
    case = case_of(tmp_path, labels, minimum_area=4)
    summary = case.write()
    assert (summary.regions, summary.dropped_pixels) == (1, 3)
    assert case.collection()["foveate"]["dropped_px"] == 3


@pytest.mark.parametrize(("side", "downsample"), [(1, 1), (3, 1), (3, 1024)])
def test_masks_smaller_than_the_least_region_have_none(tmp_path: Path, side: int, downsample: int) -> None:
    labels = np.ones((side, side), np.uint8)
    region = Region(0, 0, side * downsample, side * downsample)
    case = case_of(tmp_path, labels, minimum_area=16, region=region, mask_downsample=downsample)
    summary = case.write()
    assert (summary.regions, summary.minimum_area, summary.dropped_pixels) == (0, 16, side**2)
    assert case.collection()["features"] == []


def test_noise_does_not_explode(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (400, 350), dtype=np.uint8)
    case = case_of(tmp_path, labels, maximum_regions=50)
    summary = case.write()
    features = case.collection()["features"]
    assert 30 < len(features) <= 50
    assert summary.minimum_area > 1
    areas = [feature["properties"]["measurements"]["Area px^2"] for feature in features]
    assert min(areas) >= summary.minimum_area
    assert sum(areas) == labels.size - summary.dropped_pixels
    assert sum(geometry.area for geometry in shapes(features)) == sum(areas)


@pytest.mark.parametrize("at_once", [1, 40, 1000])
def test_how_many_corners_are_printed_at_once_makes_no_difference(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, size = georeference_of(GEOTIFFS / "cogeo.tif")
    region = Region(0, 0, min(300, size.width), min(200, size.height))
    case = case_of(tmp_path, blobs(region.size), georeference=place, region=region)
    case.write()
    written = case.job.out.read_bytes()
    assert max(written.count(b"]], [["), written.count(b"]],[[")) > 5, "some regions have holes"
    monkeypatch.setattr("raster.features._MOST_CORNERS", at_once)
    case.write()
    assert case.job.out.read_bytes() == written


@pytest.mark.parametrize("height", [1, 37, 100])
def test_the_child_process_writes_the_same_bytes(tmp_path: Path, height: int) -> None:
    case = case_of(tmp_path, blobs(Size(200, 100)))
    summary = case.write()
    written = case.job.out.read_bytes()
    assert summary.sha256 == hashlib.sha256(written).hexdigest()
    case.job.out.unlink()
    assert case.write_in_process(height) == summary
    assert case.job.out.read_bytes() == written
    assert [file.name for file in tmp_path.iterdir()] == ["regions.geojson"]


def test_a_process_that_stood_by_takes_the_next_mask_and_another_takes_its_place_if_it_was_killed(
    tmp_path: Path,
) -> None:
    case = case_of(tmp_path, blobs(Size(200, 100)))
    children = psutil.Process().children
    before = set(children())
    stand_by()
    stand_by()
    (waiting,) = set(children()) - before
    with RegionsProcess(case.job):
        assert set(children()) - before == {waiting}
    stand_by()
    (killed,) = set(children()) - before
    killed.kill()
    psutil.wait_procs([killed], timeout=10)
    assert case.write_in_process() == case.write()
    assert not set(children()) - before


def test_a_process_that_stands_by_ends_without_a_word_with_whom_it_waits_for() -> None:
    script = "from raster.regions import stand_by, _standing_by; stand_by(); print(_standing_by[0].pid)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == ""
    assert gone(int(ended.stdout))


def test_writing_leaves_nothing_to_the_garbage_collector_which_the_process_goes_without(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 2, (300, 200), dtype=np.uint8)
    case = case_of(tmp_path, noise)
    case.write()  # what is made once, and what others left
    gc.collect()
    gc.disable()
    try:
        case.write()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_full_disk_crosses_the_process(tmp_path: Path) -> None:
    case = case_of(tmp_path, blobs(Size(400, 300)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DiskFull, match=r"regions\.geojson"):
            case.write_in_process()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_child_is_an_error_for_who_feeds_it(tmp_path: Path) -> None:
    case = case_of(tmp_path, blobs(Size(1000, 1000)))
    with RegionsProcess(case.job) as process:
        process.kill()
        with pytest.raises(WorkerLost, match="was killed by signal 9"):
            for rows in case.strips():
                process.write(rows)
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_failed_by_itself_is_not_said_to_lack_memory(tmp_path: Path) -> None:
    case = case_of(tmp_path / "missing", np.zeros((20, 30), dtype=np.uint8))
    with pytest.raises(Unexpected, match="ended with status 1") as caught:
        case.write_in_process()
    assert "memory" not in caught.value.hint


def test_a_parent_that_stops_early_ends_the_child_and_leaves_nothing(tmp_path: Path) -> None:
    case = case_of(tmp_path, blobs(Size(300, 300)))
    with RegionsProcess(case.job) as process:
        process.write(case.labels[:200])
        process.end()
        with pytest.raises(Dismissed):
            process.summary()
    assert list(tmp_path.iterdir()) == []


def test_a_child_whose_parent_was_killed_says_nothing(tmp_path: Path) -> None:
    case = case_of(tmp_path, blobs(Size(300, 300)))
    command = [sys.executable, "-m", "raster.regions"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin and child.stdout and child.stderr
        child.stdout.close()
        child.stdin.write(case.job.model_dump_json().encode() + b"\n" + case.labels[:200].tobytes())
        child.stdin.close()
        assert child.stderr.read() == b""
        assert child.wait() == 1
    assert not case.job.out.exists()


@pytest.mark.parametrize("straight", [True, False])
def test_even_placements_give_what_one_by_one_placing_gives(tmp_path: Path, straight: bool) -> None:
    """All corners at once, against the way that also knows antimeridians and poles."""
    wkt = CRS.from_epsg(32632).to_wkt()
    place = Georeference(crs=wkt, transform=(0.5, 0.02, 700000.0, 0.02, -0.5, 5_000_000.0))
    case = case_of(tmp_path, blobs(Size(500, 400)), georeference=place, minimum_area=9)
    case.write()
    quick = case.collection()["features"]
    with pytest.MonkeyPatch.context() as patch:
        survey = EarthPlacement._survey
        patch.setattr(EarthPlacement, "_survey", lambda self, size: (straight, False, survey(self, size)[2]))
        case.write()
    slow = case.collection()["features"]
    assert [feature["id"] for feature in quick] == [feature["id"] for feature in slow]
    for one, other in zip(shapes(quick), shapes(slow), strict=True):
        assert one.is_valid
        assert one.exterior.is_ccw
        assert not any(ring.is_ccw for ring in one.interiors)
        assert one.normalize().equals_exact(other.normalize(), 1.01e-7)


def test_nothing_examined_is_an_empty_collection(tmp_path: Path) -> None:
    case = case_of(tmp_path, np.full((7, 9), 255, dtype=np.uint8))
    assert case.write().regions == 0
    assert case.collection()["features"] == []

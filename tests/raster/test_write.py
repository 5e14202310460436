"""mask.tif and foveation.tif: strict COGs that hold exactly what was written, in the right place, or an error."""

import hashlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from foveate.schema import ClassCard
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.overviews import mode_halved
from raster.uncertainty import UncertaintyWriter
from raster.whole_file import whole_file
from raster.write import MaskWriter, write_foveation
from tests.shared import DATA

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

GEOTIFFS = DATA / "geotiff"
CLASSES = (
    ClassCard(value=0, name="water & ice", color=(0, 0, 200)),
    ClassCard(value=3, name="Grünland", color=(10, 200, 30)),
)
NOWHERE = Georeference()


def random_labels(size: Size, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice(np.array([0, 3, 255], dtype=np.uint8), size=size.shape)


def write_mask(path: Path, labels: NDArray[np.uint8], georeference: Georeference = NOWHERE, band: int = 300) -> None:
    size = Size(labels.shape[1], labels.shape[0])
    with MaskWriter(path.parent, size, CLASSES, georeference) as writer:
        for y in range(0, size.height, band):
            region = Region(0, y, size.width, band).intersection(Region.of(size))
            writer.write(region, labels[region.slices()])
        writer.finish(path)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (512, 512), (513, 1), (2, 1025), (1000, 1003), (1777, 2053)], ids=str)
def test_any_size_is_a_strict_cog_with_a_palette(tmp_path: Path, size: tuple[int, int]) -> None:
    labels = random_labels(Size(*size))
    path = tmp_path / "mask.tif"
    write_mask(path, labels)
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as mask:
        assert np.array_equal(mask.read(1), labels)
        assert mask.nodata == 255
        assert mask.colorinterp == (ColorInterp.palette,)
        assert mask.colormap(1)[3] == (10, 200, 30, 255)
        assert mask.crs is None
        assert bool(mask.overviews(1)) == (max(size) > 512)
        assert mask.tags()["foveate"] == "classes=" + json.dumps(
            [card.model_dump(mode="json") for card in CLASSES], ensure_ascii=False, separators=(",", ":")
        )
        assert mask.tags()["TIFFTAG_SOFTWARE"].startswith("Foveate ")


def test_overviews_show_the_most_frequent_class_and_invent_none(tmp_path: Path) -> None:
    labels = np.full((1003, 1000), 255, dtype=np.uint8)
    labels[100:700, 200:801] = 3
    labels[400:500, 400:500] = 0
    write_mask(tmp_path / "mask.tif", labels)
    with rasterio.open(tmp_path / "mask.tif", overview_level=0) as overview:
        assert (overview.width, overview.height) == (500, 502)
        pixels = overview.read(1)
    padded = np.full((1, 1004, 1000), 255, dtype=np.uint8)
    padded[0, :1003] = labels
    assert np.array_equal(pixels, mode_halved(padded)[0])
    assert pixels[100, 400] == 3


def test_mode_of_four_against_counting() -> None:
    values = np.array([0, 1, 2, 255], dtype=np.uint8)
    every = values[np.stack(np.meshgrid(*[range(4)] * 4), axis=-1).reshape(-1, 2, 2)]
    for square in every:
        valid = square[square != 255]
        expected = np.bincount(valid).argmax() if valid.size else 255
        assert mode_halved(square[np.newaxis])[0, 0, 0] == expected, square


def test_same_labels_in_other_pieces_are_the_same_bytes(tmp_path: Path) -> None:
    labels = random_labels(Size(1100, 700))
    digests = set()
    for band in (700, 700, 512, 123):
        write_mask(tmp_path / "mask.tif", labels, band=band)
        digests.add(hashlib.sha256((tmp_path / "mask.tif").read_bytes()).hexdigest())
    # Unaligned pieces leave other scratch files, never another mask.
    assert len(digests) == 1


def test_counts_are_those_of_the_pixels(tmp_path: Path) -> None:
    labels = random_labels(Size(333, 222))
    with MaskWriter(tmp_path, Size(333, 300), CLASSES, NOWHERE) as writer:
        writer.write(Region(0, 50, 333, 222), labels)
        counts = writer.counts
    assert counts[0] == (labels == 0).sum()
    assert counts[255] == (labels == 255).sum() + 333 * 78
    assert counts.sum() == 333 * 300


def test_scratch_is_removed_and_a_failed_job_leaves_no_mask(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), MaskWriter(tmp_path, Size(600, 600), CLASSES, NOWHERE) as writer:
        writer.write(Region(0, 0, 600, 600), np.zeros((600, 600), dtype=np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_sidecar_names_the_classes(tmp_path: Path) -> None:
    labels = random_labels(Size(40, 30))
    write_mask(tmp_path / "mask.tif", labels)
    root = ElementTree.parse(tmp_path / "mask.tif.aux.xml").getroot()
    assert [name.text for name in root.iter("Category")] == ["water & ice", None, None, "Grünland"]
    rows = [[cell.text for cell in row] for row in root.iter("Row")]
    assert rows == [
        ["0", "water & ice", "0", "0", "200", str((labels == 0).sum())],
        ["3", "Grünland", "10", "200", "30", str((labels == 3).sum())],
    ]


@pytest.mark.parametrize(
    "name",
    [
        "RGB.byte.tif",
        "cogeo.tif",
        "rotated.tif",
        "inverted_lat.tif",
        "float_nan.tif",
        "float_raster_with_nodata.tif",
        "cog_hirise_mars.tif",
        "cog_int16.tif",
        "cog_gcps_ovr.tif",
        "rgba_geotiff.tiff",
        "cog_dateline.tif",
    ],
)
def test_the_place_on_the_ground_is_carried_exactly(tmp_path: Path, name: str) -> None:
    with rasterio.open(GEOTIFFS / name) as source:
        points, points_crs = source.gcps
        crs = source.crs or points_crs
        georeference = Georeference(
            crs=crs.to_wkt() if crs else None,
            transform=None if points else tuple(source.transform)[:6],  # type: ignore[arg-type]
            gcps=tuple((p.col, p.row, p.x, p.y, p.z) for p in points),
            area_or_point=source.tags().get("AREA_OR_POINT"),
        )
        write_mask(tmp_path / "mask.tif", np.zeros((10, 10), dtype=np.uint8), georeference)
        with rasterio.open(tmp_path / "mask.tif") as mask:
            assert mask.crs == source.crs
            assert mask.transform == source.transform
            assert [(p.col, p.row, p.x, p.y) for p in mask.gcps[0]] == [(p.col, p.row, p.x, p.y) for p in points]
            assert mask.gcps[1] == points_crs
            if crs:
                expected = source.tags().get("AREA_OR_POINT", "Area")
                assert mask.tags().get("AREA_OR_POINT", "Area") == expected


@pytest.mark.parametrize("gcps", [False, True])
@pytest.mark.parametrize(
    ("crs", "held"),
    [
        ("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +R=6371229", False),
        ("+proj=nsper +h=35785831 +lat_0=10", False),
        ("+proj=healpix", False),
        ("EPSG:4326", True),
        ("EPSG:27572", True),
    ],
)
def test_a_system_that_no_geotiff_holds_stands_beside_it(tmp_path: Path, crs: str, held: bool, gcps: bool) -> None:
    system = rasterio.crs.CRS.from_wkt(rasterio.crs.CRS.from_user_input(crs).to_wkt())
    points = tuple((c, r, 10.0 + c, 50.0 - r, 0.0) for c in (0.0, 600.0) for r in (0.0, 600.0))
    transform = None if gcps else (0.5, 0.0, 10.0, 0.0, -0.5, 50.0)
    place = Georeference(crs=system.to_wkt(), transform=transform, gcps=points if gcps else (), area_or_point="Area")
    write_mask(tmp_path / "mask.tif", np.zeros((600, 600), dtype=np.uint8), place)
    cells = np.zeros((5, 5), np.float32)
    write_foveation(tmp_path / "foveation.tif", cells, cells, place)
    writer = UncertaintyWriter(tmp_path, Size(600, 600), place)
    writer.write(Region(0, 0, 600, 600), np.zeros((600, 600), np.float32))
    writer.finish(tmp_path / "uncertainty.tif")
    writer.close()
    for name in ("mask.tif", "foveation.tif", "uncertainty.tif"):
        with rasterio.open(tmp_path / name) as raster:
            found, found_system = raster.gcps
            assert (found_system if gcps else raster.crs) == system
            assert len(found) == len(place.gcps)
            assert gcps or raster.transform == rasterio.Affine(*transform or ())
            assert cog_validate(tmp_path / name, strict=True)[0]
    assert (tmp_path / "foveation.tif.aux.xml").exists() != held
    assert (tmp_path / "uncertainty.tif.aux.xml").exists() != held
    root = ElementTree.parse(tmp_path / "mask.tif.aux.xml").getroot()
    assert len(list(root.iter("Category"))) == 4
    assert len([*root.iter("SRS"), *root.iter("GCPList")]) == (not held)


def test_control_points_of_a_pixel_is_point_file_do_not_move(tmp_path: Path) -> None:
    """GDAL shifts them by half a pixel in the same direction when it writes and when it reads."""
    points = ((0.5, 0.25, 10.0, 50.0, 0.0), (0.0, 100.0, 10.0, 49.0, 0.0), (100.0, 0.0, 11.0, 50.0, 3.0))
    wkt = rasterio.crs.CRS.from_epsg(4326).to_wkt()
    georeference = Georeference(crs=wkt, gcps=points, area_or_point="Point")
    write_mask(tmp_path / "mask.tif", np.zeros((600, 600), dtype=np.uint8), georeference)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert tuple((p.col, p.row, p.x, p.y, p.z) for p in mask.gcps[0]) == points
        assert mask.tags()["AREA_OR_POINT"] == "Point"


def test_control_points_without_a_system_are_carried(tmp_path: Path) -> None:
    points = ((0.0, 0.0, 10.0, 50.0, 0.0), (0.0, 100.0, 10.0, 49.0, 0.0), (100.0, 0.0, 11.0, 50.0, 3.0))
    georeference = Georeference(gcps=points, area_or_point="Area")
    write_mask(tmp_path / "mask.tif", np.zeros((600, 600), dtype=np.uint8), georeference)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert tuple((p.col, p.row, p.x, p.y, p.z) for p in mask.gcps[0]) == points
        assert mask.gcps[1] is None


def test_slides_carry_their_resolution(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.tif", np.zeros((30, 20), dtype=np.uint8), Georeference(spacing_um=(0.25, 0.499)))
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert float(mask.tags()["TIFFTAG_XRESOLUTION"]) == 40000
        assert float(mask.tags()["TIFFTAG_YRESOLUTION"]) == pytest.approx(10000 / 0.499, rel=1e-6)
        assert mask.tags()["TIFFTAG_RESOLUTIONUNIT"].startswith("3")


def test_bigtiff_is_decided_by_the_uncompressed_size(tmp_path: Path) -> None:
    for side, magic in ((40_000, 42), (70_000, 43)):
        path = tmp_path / "mask.tif"
        with MaskWriter(tmp_path, Size(side, side), CLASSES, NOWHERE) as writer:
            writer.write(Region(side - 5, side - 5, 5, 5), np.zeros((5, 5), dtype=np.uint8))
            writer.finish(path)
        assert path.read_bytes()[2] == magic
        assert path.stat().st_size < 5_000_000
        assert cog_validate(path, strict=True)[0]
        with rasterio.open(path) as mask:
            assert np.count_nonzero(mask.read(1, window=((side - 600, side), (side - 600, side))) == 0) == 25


@pytest.mark.parametrize("limit", [300_000, 1_200_000], ids=["scratch", "copy"])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    """GDAL closes a file whose tiles could not be written without a word."""
    script = textwrap.dedent(
        f"""
        import resource, sys
        from pathlib import Path
        import numpy as np
        from foveate.errors import DiskFull
        from foveate.schema import ClassCard
        from raster.geometry import Region, Size
        from raster.georeference import Georeference
        from raster.write import MaskWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        folder = Path(sys.argv[1])
        labels = np.random.default_rng(0).integers(0, 2, (3000, 3000), dtype=np.uint8)
        try:
            card = ClassCard(value=0, name="a", color=(0, 0, 0))
            with MaskWriter(folder, Size(3000, 3000), [card], Georeference()) as w:
                w.write(Region(0, 0, 3000, 3000), labels)
                w.finish(folder / "mask.tif")
        except DiskFull as error:
            print(error.message)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "could not be written whole" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (700, 20)], ids=str)
def test_foveation_is_a_strict_cog_over_the_cells(tmp_path: Path, shape: tuple[int, int]) -> None:
    mean = np.random.default_rng(0).random(shape).astype(np.float32)
    mean[0, 0] = np.nan
    chosen = np.where(np.isnan(mean), np.nan, 2).astype(np.float32)
    cells = Georeference(transform=(0.5, 0.0, 100.0, 0.0, -0.5, 50.0)).regridded(0, 0, 192, 192)
    path = tmp_path / "foveation.tif"
    write_foveation(path, mean, chosen, cells)
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as foveation:
        assert np.array_equal(foveation.read(), np.stack([mean, chosen]), equal_nan=True)
        assert np.isnan(foveation.nodata)
        assert foveation.descriptions[1] == "chosen field of view, 1-based"
        assert tuple(foveation.transform)[:6] == (96.0, 0.0, 100.0, 0.0, -96.0, 50.0)
    assert [file.name for file in tmp_path.iterdir()] == ["foveation.tif"]


@pytest.mark.slow
def test_memory_does_not_follow_the_mask(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from foveate.schema import ClassCard
        from raster.geometry import Region, Size
        from raster.georeference import Georeference
        from raster.write import MaskWriter
        side, folder = int(sys.argv[1]), Path(sys.argv[2])
        labels = np.arange(512 * side, dtype=np.uint32).reshape(512, side) // 97 % 2
        with MaskWriter(folder, Size(side, side), [ClassCard(value=0, name="a", color=(0, 0, 0))], Georeference()) as w:
            for y in range(0, side - 511, 512):
                w.write(Region(0, y, side, 512), labels.astype(np.uint8))
            w.finish(folder / "mask.tif")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        """
    )
    command = [sys.executable, "-c", script]
    small, large = (
        int(subprocess.run([*command, side, tmp_path], capture_output=True, text=True, check=True).stdout)
        for side in ("2048", "16384")
    )
    assert large - small < 250


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """In containers they may have the same process number."""
    with whole_file(tmp_path / "a") as one, whole_file(tmp_path / "a") as other:
        one.write_bytes(b"first")
        other.write_bytes(b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"first"

"""Kinds of label files: numbers, palettes, colours and polygons, on plain, georeferenced and slide images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image

from foveate.errors import FoveateError, ImageUnreadable, OptionInvalid
from model.datasets.classes import IGNORE
from model.datasets.labelled import LabelledImage, open_labelled
from model.datasets.layouts import find_pairs
from raster.geometry import Region, Size
from tests.model.datasets.scenes import RULES, card, pairs_data, save
from tests.shared import DATA

SLIDE = DATA / "slides/CMU-1-Small-Region.svs"
DICOM = DATA / "slides/dicom-camelyon"
SCENE = DATA / "geotiff/RGB.byte.tif"
NAMED = [{"name": "tumour", "value": 1}, {"name": "vessel", "value": 2}, {"name": "fold", "value": None}]


def opened(image: Path, label: Path, **changes: Any) -> LabelledImage:
    """The image with its labels, listed in a CSV file."""
    listing = label.with_suffix(".csv")
    listing.write_text(f"image,label\n{image},{label}\n")
    scenes = [{"csv": listing}]
    data = pairs_data(label.parent, train=scenes, test=scenes, **changes)
    return open_labelled(find_pairs(data, "train")[0], data, card())


def picture(folder: Path, width: int, height: int) -> Path:
    return save(folder / "image.png", np.zeros((height, width, 3), np.uint8))


def whole(image: LabelledImage) -> NDArray[np.uint8]:
    labels = image.labels(Region.of(image.size), image.size)
    image.close()
    return labels


def refusal(image: Path, label: Path, **changes: Any) -> FoveateError:
    with pytest.raises(FoveateError) as caught:
        whole(opened(image, label, **changes))
    return caught.value


def feature(rings: list[Any], name: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": [255, 0, 0]}},
    }


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def geojson(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


# --- rasters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_numbers(tmp_path: Path, suffix: str) -> None:
    numbers = np.array([[0, 300], [65535, 301]], np.uint16)
    label = save(tmp_path / f"label.{suffix}", numbers)
    rules = [{"low": 0, "high": 0, "value": 0}, {"low": 300, "high": 301, "value": 1}]
    assert "label 65535" in refusal(picture(tmp_path, 2, 2), label, labels=rules).message
    last = {"low": 65535, "high": 65535, "value": None}
    assert whole(opened(picture(tmp_path, 2, 2), label, labels=[*rules, last])).tolist() == [[0, 1], [IGNORE, 1]]


def test_a_palettes_numbers_count_and_its_colours_where_only_those_have_rules(tmp_path: Path) -> None:
    stored = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    stored.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    stored.save(tmp_path / "label.png")
    image = picture(tmp_path, 3, 1)
    assert whole(opened(image, tmp_path / "label.png")).tolist() == [[0, 1, 2]]
    colours = [{"color": [9, 9, 9], "value": 2}, {"color": [200, 0, 0], "value": 0}, {"color": [0, 200, 0], "value": 1}]
    assert whole(opened(image, tmp_path / "label.png", labels=colours)).tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("bits", [1, 4])
def test_few_bits_a_pixel_are_not_stretched(tmp_path: Path, bits: int) -> None:
    values = np.array([[0, 1, 1, 0]], np.uint8)
    stored = Image.fromarray(values.astype(bool)) if bits == 1 else Image.fromarray(values).convert("P")
    stored.save(tmp_path / "label.png", bits=bits)
    assert whole(opened(picture(tmp_path, 4, 1), tmp_path / "label.png")).tolist() == [[0, 1, 1, 0]]


def test_objects_are_not_told_apart_by_colours(tmp_path: Path) -> None:
    label = save(tmp_path / "mask.png", np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8))
    rules = [{"color": [255, 0, 0], "value": 1}, {"color": [0, 0, 0], "value": 0}]
    image = opened(picture(tmp_path, 2, 1), label, labels=rules, objects=1)
    with pytest.raises(OptionInvalid, match=r"mask\.png is read by its colours"):
        image.objects()


def test_colours_of_a_mask_become_classes_and_others_are_named(tmp_path: Path) -> None:
    mask = np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 0]]], np.uint8)
    rules = [{"color": [255, 0, 0], "value": 1}, {"color": [0, 0, 255], "value": 0}]
    label = save(tmp_path / "mask.png", mask)
    image = picture(tmp_path, 3, 1)
    assert "colour (0, 0, 0)" in refusal(image, label, labels=rules).message
    rules.append({"color": [0, 0, 0], "value": None})
    assert whole(opened(image, label, labels=rules)).tolist() == [[1, 0, IGNORE]]
    assert "no rule" in refusal(image, label, labels=RULES).message


def test_a_declared_no_data_value_needs_no_rule(tmp_path: Path) -> None:
    profile = {"width": 2, "height": 1, "count": 1, "dtype": "uint8", "transform": rasterio.Affine.scale(2, -2)}
    with rasterio.open(tmp_path / "label.tif", "w", "GTiff", **profile, nodata=200) as file:
        file.write(np.array([[[200, 1]]], np.uint8))
    assert whole(opened(picture(tmp_path, 2, 1), tmp_path / "label.tif")).tolist() == [[IGNORE, 1]]


def test_labels_of_another_size_are_refused_with_both(tmp_path: Path) -> None:
    label = save(tmp_path / "label.png", np.zeros((7, 9), np.uint8))
    error = refusal(picture(tmp_path, 10, 8), label)
    assert isinstance(error, OptionInvalid) and "9 x 7" in error.message and "10 x 8" in error.message


def test_labels_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    image = picture(tmp_path, 8, 8)
    kinds: dict[str, NDArray[Any]] = {
        "lossy.jpg": np.zeros((8, 8), np.uint8),
        "real.tif": np.zeros((8, 8), np.float32),
    }
    for name, values in kinds.items():
        assert name in refusal(image, save(tmp_path / name, values)).message
    cut = save(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 3, (8, 8), np.uint8))
    cut.write_bytes(cut.read_bytes()[:-30])
    assert isinstance(refusal(image, cut), ImageUnreadable)


def test_labels_packed_with_loss_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "label.tif", compression="jpeg")
    error = refusal(picture(tmp_path, 16, 16), tmp_path / "label.tif")
    assert isinstance(error, ImageUnreadable) and "label.tif is packed by JPEG" in error.message


def test_a_folder_is_no_label_file(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    error = refusal(picture(tmp_path, 4, 4), tmp_path / "labels")
    assert isinstance(error, ImageUnreadable) and "labels cannot be read" in error.message


def placed(path: Path, crs: str, transform: rasterio.Affine, values: NDArray[np.uint8]) -> Path:
    profile = {"width": values.shape[-1], "height": values.shape[-2], "dtype": "uint8", "crs": crs}
    bands = values.reshape(-1, *values.shape[-2:])
    with rasterio.open(path, "w", "GTiff", count=len(bands), transform=transform, **profile) as file:
        file.write(bands)
    return path


def test_labels_of_other_ground_are_refused(tmp_path: Path) -> None:
    """Of the same ground they may be off by half a pixel, and their system may have another name."""
    side = 40

    def utm(x: float, y: float, down: float = -2) -> rasterio.Affine:
        return rasterio.Affine(2, 0, 500_000 + x, 0, down, 2_700_000 + y)

    image = placed(tmp_path / "image.tif", "EPSG:32640", utm(0, 0), np.zeros((3, side, side), np.uint8))
    classes = np.eye(side, dtype=np.uint8)
    for crs, shifted in (("EPSG:32640", 0.5), ("+proj=utm +zone=40 +datum=WGS84 +units=m +type=crs", 0)):
        same = placed(tmp_path / "same.tif", crs, utm(2 * shifted, 0), classes)
        assert np.array_equal(whole(opened(image, same)), classes)
    degrees = rasterio.Affine(2e-5, 0, 57, 0, -2e-5, 24.4)
    for crs, elsewhere in (
        ("EPSG:32640", utm(0, -6)),
        ("EPSG:32640", utm(0, -2 * side, 2)),
        ("EPSG:4326", degrees),
    ):
        error = refusal(image, placed(tmp_path / "elsewhere.tif", crs, elsewhere, classes))
        assert isinstance(error, OptionInvalid) and "elsewhere.tif lies elsewhere than its image" in error.message


# --- polygons -------------------------------------------------------------------------------------------------------


def test_polygons_label_the_pixels_whose_centres_they_hold(tmp_path: Path) -> None:
    """A hole is kept, the later polygon lies on top, a hole from 2.4 holds the centre 2.5 and one from 2.6 does not."""
    label = geojson(
        tmp_path / "label.geojson",
        feature([rectangle(0, 0, 8, 8), rectangle(2.4, 2.6, 6, 6)], "tumour"),
        feature([rectangle(7, 0, 10, 3)], "vessel"),
        feature([rectangle(0, 7, 1, 8)], "fold"),
    )
    image = opened(picture(tmp_path, 10, 8), label, labels=NAMED, background=0)
    expected = np.zeros((8, 10), np.uint8)
    expected[:, :8] = 1
    expected[3:6, 2:6] = 0
    expected[0:3, 7:] = 2
    expected[7, 0] = IGNORE
    assert np.array_equal(whole(image), expected)
    assert (whole(opened(picture(tmp_path, 10, 8), label, labels=NAMED))[3:6, 2:6] == IGNORE).all()


def test_windows_of_polygons_agree_with_the_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(-20, 640, (60, 1, 2)) + random.uniform(-40, 40, (60, 5, 2))
    features = [feature([[*ring.tolist(), ring[0].tolist()]], "tumour") for ring in corners]
    image = opened(picture(tmp_path, 620, 600), geojson(tmp_path / "l.geojson", *features), labels=NAMED, background=0)
    everything = image.labels(Region.of(image.size), image.size)
    assert 0.02 < (everything == 1).mean() < 0.9
    for x, y in random.integers(0, 500, (20, 2)):
        part = image.labels(Region(int(x), int(y), 97, 61), Size(97, 61))
        inside = everything[y : y + 61, x : x + 97]
        assert np.array_equal(part[: inside.shape[0], : inside.shape[1]], inside)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no GeoJSON"),
        ("[" * 100_000, "no GeoJSON"),
        ('{"type": "FeatureCollection", "features": 3}', "lists no features"),
        (json.dumps(feature([rectangle(0, 0, 1, 1)], "cell")), "class 'cell'"),
        (json.dumps(feature([[[0, 0], [1, "a"]]], "tumour")), "feature 0"),
        ('{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}', "feature 0 is a Point"),
        ('[{"type": "Feature", "geometry": null}]', "without geometry"),
        (json.dumps(feature([rectangle(0, 0, 1, 1)], "") | {"properties": {}}), "feature 0 has no class"),
        (json.dumps(feature([rectangle(0, 0, 1, float("inf"))], "tumour")), "feature 0"),
    ],
)
def test_broken_polygons_are_named(tmp_path: Path, content: str, said: str) -> None:
    label = tmp_path / "label.geojson"
    label.write_text(content)
    error = refusal(picture(tmp_path, 4, 4), label, labels=NAMED)
    assert said in error.message and "label.geojson" in error.message


def test_a_slide_with_qupaths_annotations(tmp_path: Path) -> None:
    derived = feature([rectangle(1000, 2000, 1200, 2100)], "")
    derived["properties"]["classification"] = {"names": ["tumour", "positive"]}
    label = geojson(tmp_path / "slide.geojson", feature([rectangle(100, 200, 900, 700)], "tumour"), derived)
    rules = [*NAMED, {"name": "tumour: positive", "value": 2}]
    image = opened(SLIDE, label, labels=rules, background=0, objects=1)
    assert image.size == Size(2220, 2967)
    classes = image.labels(Region(0, 0, 2220, 2967), Size(555, 742))
    assert (classes[50:175, 25:225] == 1).all() and (classes[500:525, 250:300] == 2).all()
    assert image.present == [0, 1, 2]
    for x, y in image.places(2, 9, np.random.default_rng(1)):
        assert 998 <= x <= 1202 and 1998 <= y <= 2102
    objects = image.objects()
    assert objects is not None and set(np.unique(objects)) == {0, 1} and (objects == 1).sum() == 800 * 500
    assert image.thumbnail(Size(222, 297)).std() > 5
    image.close()


def test_a_scene_with_polygons_in_degrees(tmp_path: Path) -> None:
    """RFC 7946 on UTM: the corners of pixel rectangles, through the CRS, come back as those pixels."""
    with rasterio.open(SCENE) as file:
        transform, crs = file.transform, file.crs
    to_degrees = pyproj.Transformer.from_crs(crs.to_wkt(), "OGC:CRS84", always_xy=True)
    corners = np.array(rectangle(300, 200, 420, 260))
    ground = [(transform.a * x + transform.c, transform.e * y + transform.f) for x, y in corners]
    degrees = [list(to_degrees.transform(x, y)) for x, y in ground]
    image = opened(SCENE, geojson(tmp_path / "scene.geojson", feature([degrees], "vessel")), labels=NAMED, background=0)
    classes = image.labels(Region(290, 190, 140, 80), Size(140, 80))
    expected = np.zeros((80, 140), np.uint8)
    expected[10:70, 10:130] = 2
    assert (classes != expected).mean() < 1e-3
    image.close()


def test_a_scene_with_a_labelled_geotiff_and_its_no_data(tmp_path: Path) -> None:
    with rasterio.open(SCENE) as file:
        profile = {name: file.profile[name] for name in ("width", "height", "crs", "transform")}
        valid = file.dataset_mask() > 0
    numbers = np.add.outer(np.arange(718) // 100, np.arange(791) // 100).astype(np.uint8) % 3
    with rasterio.open(tmp_path / "label.tif", "w", "GTiff", count=1, dtype="uint8", tiled=True, **profile) as file:
        file.write(numbers, 1)
    assert np.array_equal(whole(opened(SCENE, tmp_path / "label.tif")), np.where(valid, numbers, IGNORE))


def test_a_dicom_series_with_a_label_raster(tmp_path: Path) -> None:
    numbers = np.zeros((700, 1152), np.uint8)
    numbers[100:300, 200:500] = 1
    image = opened(DICOM, save(tmp_path / "label.png", numbers))
    assert image.size == Size(1152, 700)
    assert np.array_equal(image.labels(Region(192, 92, 64, 64), Size(16, 16)), numbers[92:156:4, 192:256:4])
    assert image.pixels(Region(0, 0, 1152, 700), Size(288, 175)).std() > 5
    image.close()

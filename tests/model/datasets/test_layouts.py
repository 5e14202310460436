"""The published data sets, on folders laid out like theirs: splits, labels, and what is said when files are missing."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from foveate.errors import EngineMissing, ImageMissing, OptionInvalid
from model.datasets.classes import IGNORE
from model.datasets.config import Data
from model.datasets.labelled import LabelledImage, open_labelled
from model.datasets.layouts import find_pairs
from model.datasets.staple import UNDECIDED, staple
from raster.geometry import Region
from tests.model.datasets.scenes import card, save
from tests.shared import DATA

KITTI = DATA / "street/kitti"
GLAS = DATA / "pathology/glas"


def data_of(**fields: Any) -> Data:
    return TypeAdapter(Data).validate_python(fields)


def classes_of(image: LabelledImage) -> np.ndarray[Any, Any]:
    labels = image.labels(Region.of(image.size), image.size)
    image.close()
    return labels


# --- DeepGlobe ------------------------------------------------------------------------------------------------------


def deepglobe(folder: Path, count: int) -> Path:
    """Empty files with DeepGlobe's names."""
    (folder / "land-train").mkdir(parents=True)
    for k in range(count):
        (folder / f"land-train/{1000 + k}_sat.jpg").touch()
        (folder / f"land-train/{1000 + k}_mask.png").touch()
    return folder


def test_deepglobe_is_split_as_in_the_paper(tmp_path: Path) -> None:
    data = data_of(layout="deepglobe", folder=deepglobe(tmp_path, 803))
    found = {split: find_pairs(data, split) for split in ("train", "validation", "test")}
    assert {split: len(pairs) for split, pairs in found.items()} == {"train": 455, "validation": 207, "test": 141}
    assert len({pair.name for pairs in found.values() for pair in pairs}) == 803
    assert found["train"] == find_pairs(data, "train")
    assert [pair.turn for pair in found["train"][:3]] == [0, 1, 2] and found["test"][0].turn is None
    tenth = data_of(layout="deepglobe", folder=tmp_path, share=0.1)
    assert find_pairs(tenth, "validation") == found["validation"][:21]
    assert len(find_pairs(tenth, "test")) == 141


def test_deepglobe_takes_the_authors_lists(tmp_path: Path) -> None:
    deepglobe(tmp_path, 5)
    line = {"fpath_img": "land-train/1003_sat.jpg", "fpath_segm": "prepared/1003_label.png", "width": 2448}
    (tmp_path / "train.odgt").write_text(json.dumps(line) + "\n" + json.dumps(line).replace("1003", "1001") + "\n")
    data = data_of(layout="deepglobe", folder=tmp_path, lists=tmp_path)
    assert [pair.name for pair in find_pairs(data, "train")] == ["1003_sat.jpg", "1001_sat.jpg"]
    with pytest.raises(ImageMissing, match=r"test\.odgt"):
        find_pairs(data, "test")
    (tmp_path / "test.odgt").write_text("1003_sat.jpg\n")
    with pytest.raises(OptionInvalid, match=r"test\.odgt, line 1"):
        find_pairs(data, "test")


def test_deepglobe_colours_are_thresholded_and_unknown_is_ignored(tmp_path: Path) -> None:
    colours = [(0, 255, 255), (250, 200, 3), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 9, 0)]
    mask = np.array([colours], np.uint8)
    save(tmp_path / "land-train/7_mask.png", mask)
    save(tmp_path / "land-train/7_sat.jpg", np.zeros_like(mask))
    Image.fromarray(mask).quantize(8).save(tmp_path / "land-train/6_mask.png")
    save(tmp_path / "land-train/6_sat.jpg", np.zeros_like(mask))
    save(tmp_path / "land-train/8_label.png", np.arange(7, dtype=np.uint8)[None])
    save(tmp_path / "land-train/8_sat.jpg", np.zeros_like(mask))
    data = data_of(layout="deepglobe", folder=tmp_path)
    pairs = [pair for split in ("train", "validation", "test") for pair in find_pairs(data, split)]
    assert len(pairs) == 3
    for pair in pairs:
        assert classes_of(open_labelled(pair, data, card(range(6)))).tolist() == [[0, 1, 2, 3, 4, 5, IGNORE]]


def test_a_mask_that_misses_is_named(tmp_path: Path) -> None:
    data = data_of(layout="deepglobe", folder=deepglobe(tmp_path, 3))
    (tmp_path / "land-train/1001_mask.png").unlink()
    with pytest.raises(ImageMissing, match=r"1001_mask\.png"):
        [find_pairs(data, split) for split in ("train", "validation", "test")]


@pytest.mark.parametrize("layout", ["deepglobe", "cityscapes", "glas", "gleason2019"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, layout: str) -> None:
    fields = {"fused": tmp_path / "fused"} if layout == "gleason2019" else {}
    with pytest.raises(ImageMissing, match="nowhere"):
        find_pairs(data_of(layout=layout, folder=tmp_path / "nowhere", **fields), "train")


# --- Cityscapes -----------------------------------------------------------------------------------------------------


def cityscapes(folder: Path) -> Path:
    """KITTI's three streets, whose labels use Cityscapes' ids, under Cityscapes' names."""
    for k, (split, city) in enumerate([("train", "aachen"), ("train", "bochum"), ("val", "munster")]):
        name = f"{city}_{k:06d}_000019"
        image, label = (
            folder / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png",
            folder / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png",
        )
        for path, source in ((image, "images"), (label, "masks")):
            path.parent.mkdir(parents=True)
            path.symlink_to(KITTI / source / f"{k:06d}_10.png")
    return folder


def test_cityscapes_ids_of_real_streets_become_classes(tmp_path: Path) -> None:
    data = data_of(layout="cityscapes", folder=cityscapes(tmp_path))
    pairs = find_pairs(data, "train")
    assert [pair.name.split("/")[0] for pair in pairs] == ["aachen", "bochum"]
    assert find_pairs(data, "test") == find_pairs(data, "validation")
    ids = np.asarray(Image.open(KITTI / "masks/000000_10.png"))
    classes = classes_of(open_labelled(pairs[0], data, card(range(19))))
    for number, klass in {7: 0, 8: 1, 11: 2, 21: 8, 23: 10, 26: 13, 4: IGNORE}.items():
        assert (classes[ids == number] == klass).all() and (ids == number).any()


def test_cityscapes_without_labels_of_an_image_names_them(tmp_path: Path) -> None:
    data = data_of(layout="cityscapes", folder=cityscapes(tmp_path))
    next((tmp_path / "gtFine/val/munster").iterdir()).unlink()
    with pytest.raises(ImageMissing, match="munster_000002_000019_gtFine_labelIds"):
        find_pairs(data, "validation")


# --- GlaS -----------------------------------------------------------------------------------------------------------


def test_glas_as_published_keeps_the_order_of_its_numbers(tmp_path: Path) -> None:
    for k, stem in enumerate(["train_10", "train_9", "testB_1", "testA_2"], start=1):
        Image.open(GLAS / f"train/images/{k:03d}.jpg").save(tmp_path / f"{stem}.bmp")
        Image.open(GLAS / f"train/masks/{k:03d}.png").save(tmp_path / f"{stem}_anno.bmp")
    data = data_of(layout="glas", folder=tmp_path)
    assert [pair.name for pair in find_pairs(data, "train")] == ["train_9.bmp", "train_10.bmp"]
    assert [pair.name for pair in find_pairs(data, "test")] == ["testA_2.bmp", "testB_1.bmp"]
    assert find_pairs(data, "validation") == []
    image = open_labelled(find_pairs(data, "train")[1], data, card())
    glands = np.asarray(Image.open(GLAS / "train/masks/001.png"))
    objects = image.objects()
    assert objects is not None and objects.dtype == np.int32 and np.array_equal(objects, glands)
    assert np.array_equal(classes_of(image), (glands > 0).astype(np.uint8))


def test_glass_of_glas_is_a_class_of_its_own(tmp_path: Path) -> None:
    pixels = np.full((40, 40, 3), (190, 120, 160), np.uint8)
    pixels[:, 20:] = 245
    numbers = np.zeros((40, 40), np.uint8)
    numbers[:8] = 3
    save(tmp_path / "train_1.bmp", pixels)
    save(tmp_path / "train_1_anno.bmp", numbers)
    glass = {"within": 1, "value": 0, "brightness": 215, "chroma": 25, "radius": 2}
    data = data_of(layout="glas", folder=tmp_path, glass=glass)
    classes = classes_of(open_labelled(find_pairs(data, "train")[0], data, card(range(6))))
    assert (classes[:8] == 2).all() and (classes[8:, :18] == 1).all() and (classes[8:, 22:] == 0).all()


# --- Gleason2019 ----------------------------------------------------------------------------------------------------


def gleason(folder: Path, side: int = 48, raters: int = 3) -> np.ndarray[Any, Any]:
    """One core whose raters agree but for a tenth of the pixels each; the truth."""
    random = np.random.default_rng(4)
    truth = np.kron(random.choice([0, 1, 3, 4, 5, 6], (6, 6)), np.ones((side // 6, side // 6))).astype(np.uint8)
    save(folder / "Train Imgs/slide001_core003.jpg", np.zeros((side, side, 3), np.uint8))
    for k in range(raters):
        rated = truth.copy()
        wrong = np.flatnonzero(random.random(truth.size) < 0.1)
        rated.flat[wrong] = random.choice([0, 3, 4], len(wrong))
        save(folder / f"Maps{k + 1}_T/slide001_core003_classimg_nonconvex.png", rated)
    return truth


@pytest.fixture
def itk() -> None:
    pytest.importorskip("SimpleITK")


def only_pair(data: Data) -> Any:
    (pair,) = [pair for split in ("train", "validation", "test") for pair in find_pairs(data, split)]
    return pair


@pytest.mark.parametrize(
    ("grades", "expected"),
    [(0, [0, 0, 1, 2, 3, 0]), (30, [0, 0, 1, 2, 0, 0]), (4, [0, 0, 0, 1, 0, 0]), (6, [0, 0, 1, 1, 1, 0])],
)
def test_gleason_maps_are_fused_once_cropped_and_mapped(
    tmp_path: Path, itk: None, grades: int, expected: list[int]
) -> None:
    truth = gleason(tmp_path)
    fields = {"layout": "gleason2019", "folder": tmp_path, "fused": tmp_path / "made/fused", "grades": grades}
    data = data_of(**fields, crop=32)
    pair = only_pair(data)
    fused = np.asarray(Image.open(pair.labels[0]))
    assert np.mean(fused == truth) > 0.97
    written = pair.labels[0].stat().st_mtime_ns
    assert only_pair(data) == pair and pair.labels[0].stat().st_mtime_ns == written
    image = open_labelled(pair, data, card(range(6)))
    assert image.size.shape == (32, 32)
    classes = classes_of(image)
    for grade, klass in zip([0, 1, 3, 4, 5, 6], expected, strict=True):
        assert (classes[fused[8:40, 8:40] == grade] == klass).all()


def test_raters_of_different_sizes_and_cores_without_any_are_named(tmp_path: Path, itk: None) -> None:
    gleason(tmp_path)
    data = data_of(layout="gleason2019", folder=tmp_path, fused=tmp_path / "fused")
    save(tmp_path / "Maps2_T/slide001_core003_classimg_nonconvex.png", np.zeros((40, 48), np.uint8))
    with pytest.raises(OptionInvalid, match=r"Maps2_T.*48 x 40 px.*48 x 48"):
        only_pair(data)
    for rater in tmp_path.glob("Maps?_T"):
        next(rater.iterdir()).unlink()
    with pytest.raises(ImageMissing, match=r"slide001_core003\.jpg has no map"):
        only_pair(data)
    assert not (tmp_path / "fused").exists() or not list((tmp_path / "fused").iterdir())


def test_without_simpleitk_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gleason(tmp_path)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(EngineMissing) as caught:
        only_pair(data_of(layout="gleason2019", folder=tmp_path, fused=tmp_path / "fused"))
    assert "pip install" in caught.value.hint


def test_staple_trusts_the_better_raters_and_leaves_ties_undecided(itk: None) -> None:
    random = np.random.default_rng(0)
    truth = np.kron(random.integers(0, 2, (8, 8)), np.ones((16, 16))).astype(np.uint8)
    good, bad = truth.copy(), [random.integers(0, 2, truth.shape).astype(np.uint8) for _ in range(2)]
    good[random.random(truth.shape) < 0.02] ^= 1
    fused = staple([good, truth.copy(), *bad])
    majority = np.stack([good, truth, *bad]).sum(0) > 2
    assert np.mean(fused == truth) > 0.97 > np.mean(majority == truth)
    assert set(np.unique(fused)) <= {0, 1, UNDECIDED}

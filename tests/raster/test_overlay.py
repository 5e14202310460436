"""overlay.png shows the image, the classes and the legend within 4096 px."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.schema import ClassCard
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.overlay import LONGEST_SIDE, PICTURE_SIDE, read_mask, write_overlay
from raster.write import MaskWriter

CLASSES = (
    ClassCard(value=0, name="water", color=(0, 0, 255)),
    ClassCard(value=1, name="a class whose name is far too long for the legend", color=(255, 0, 0)),
)


def counts(labels: np.ndarray) -> list[int]:
    return np.bincount(labels.ravel(), minlength=256).tolist()


@pytest.mark.parametrize("image", [(1, 1), (7, 9), (2048, 2048), (2048, 6), (6, 2048)], ids=str)
def test_the_picture_is_at_most_4096_px(tmp_path: Path, image: tuple[int, int]) -> None:
    assert max(image) <= PICTURE_SIDE
    numbers = [5, 5] + [0] * 253 + [3]
    size = Size(*image)
    thumbnail = np.full((*size.shape, 3), 100, dtype=np.uint8)
    labels = np.zeros(size.shape, dtype=np.uint8)
    write_overlay(tmp_path / "overlay.png", thumbnail, labels, CLASSES, numbers)
    with Image.open(tmp_path / "overlay.png") as picture:
        assert max(picture.size) <= LONGEST_SIDE
        assert picture.size[0] > size.width


def test_classes_are_tinted_and_the_rest_is_grey(tmp_path: Path) -> None:
    labels = np.zeros((900, 900), dtype=np.uint8)
    labels[:, 300:600] = 1
    labels[:, 600:] = 255
    thumbnail = np.full((900, 900, 3), (90, 120, 90), dtype=np.uint8)
    write_overlay(tmp_path / "overlay.png", thumbnail, labels, CLASSES, counts(labels))
    pixels = np.array(Image.open(tmp_path / "overlay.png")).astype(int)
    water, other, unexamined = pixels[450, 150], pixels[450, 450], pixels[450, 750]
    assert water[2] > thumbnail[0, 0, 2] and water[0] < thumbnail[0, 0, 0]
    assert other[0] > other[2]
    assert unexamined[0] == unexamined[1] == unexamined[2] > 120
    assert pixels[450, 299, 2] > water[2], "the boundary is stronger than the tint"


def test_the_mask_is_read_through_its_overviews(tmp_path: Path) -> None:
    labels = np.zeros((2000, 3000), dtype=np.uint8)
    labels[:1000] = 1
    with MaskWriter(tmp_path, Size(3000, 2000), CLASSES, Georeference(transform=(1, 0, 0, 0, -1, 0))) as writer:
        writer.write(Region(0, 0, 3000, 2000), labels)
        writer.finish(tmp_path / "mask.tif")
    reduced = read_mask(tmp_path / "mask.tif", Size(300, 200), (3000, 2000))
    assert reduced.shape == (200, 300)
    assert np.array_equal(reduced, np.repeat([[1], [0]], 100, axis=0) * np.ones((1, 300), dtype=np.uint8))


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    labels = np.arange(3000, dtype=np.uint8).reshape(50, 60) % 2
    thumbnail = np.zeros((50, 60, 3), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        write_overlay(tmp_path / name, thumbnail, labels, CLASSES, counts(labels))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

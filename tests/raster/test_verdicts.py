"""What was found out about a file is asked once, until the file changes."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

import raster.geotiff
import raster.verdicts
from raster.image import ImageRef, RasterImage, open_image
from raster.levels import trusted_levels
from raster.verdicts import Verdicts


def test_a_file_is_asked_about_once_until_it_changes(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"one")
    other.write_bytes(b"one")
    verdicts: Verdicts[int] = Verdicts()
    answers = iter(range(10))

    def ask(*paths: Path, question: str = "?") -> int:
        return verdicts.about(paths, question, lambda: next(answers))

    assert [ask(file), ask(file), ask(other), ask(file, question="!"), ask(file, other), ask(file)] == [
        0,
        0,
        1,
        2,
        3,
        0,
    ]
    file.write_bytes(b"longer")
    assert ask(file) == 4


def test_threads_that_make_room_take_no_answer_from_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    monkeypatch.setattr(raster.verdicts, "_MOST", 2)
    verdicts: Verdicts[int] = Verdicts()
    with ThreadPoolExecutor(8) as threads:
        asked = [k % 7 for k in range(4000)]
        assert list(threads.map(lambda k: verdicts.about([file], k, lambda: k), asked)) == asked


def test_a_further_handle_does_not_compare_the_levels_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = tmp_path / "a.tif", []

    def write(shade: int) -> None:
        layout = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64, "dtype": "uint8"}
        layout["transform"] = rasterio.Affine(1, 0, 10, 0, -1, 10)
        with rasterio.open(path, "w", width=256, height=256, count=1, **layout) as file:
            file.write(np.full((1, 256, 256), shade, np.uint8))
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2], Resampling.average)

    def counted(image: RasterImage, places: Iterable[tuple[int, int]]) -> int:
        asked.append(image)
        return trusted_levels(image, places)

    monkeypatch.setattr(raster.geotiff, "trusted_levels", counted)
    write(10)
    for _ in range(3):
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 2
    assert len(asked) == 1
    write(20)
    os.utime(path, ns=(1, 1))
    open_image(ImageRef(path)).close()
    assert len(asked) == 2

"""Thumbnails of any size: rows on disk, and a tissue mask that is computed row by row."""

import errno
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foveate.errors import DiskFull
from raster.rows import RowsOnDisk, bands
from raster.tissue import Tissue

GLASS, PALE, DARK = (240, 240, 242), (226, 220, 226), (120, 60, 130)
FILL = np.array([180, 130, 170], np.uint8)


def on_disk(folder: Path, array: NDArray[np.generic]) -> RowsOnDisk:
    rows = RowsOnDisk(folder, array.shape, array.dtype)
    for part in bands(len(array)):
        rows.append(array[part])
    return rows


@given(height=st.integers(1, 600), first=st.integers(0, 700), last=st.integers(0, 700))
@settings(max_examples=30)
def test_rows_on_disk_are_those_of_the_array(
    tmp_path_factory: pytest.TempPathFactory, height: int, first: int, last: int
) -> None:
    array = np.random.default_rng(0).random((height, 5, 3), np.float32)
    folder = tmp_path_factory.mktemp("rows")
    rows, others = on_disk(folder, array), on_disk(folder, 1 - array)
    assert np.array_equal(others[first : max(first, last)], 1 - array[first : max(first, last)])
    assert np.array_equal(rows[first : max(first, last)], array[first : max(first, last)])


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    rows = RowsOnDisk(tmp_path, (2, 3), np.dtype(np.uint8))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull, match="thumbnail"):
        rows.append(np.zeros((2, 3), np.uint8))


def slide(height: int, width: int) -> NDArray[np.uint8]:
    """Glass with noise, a pale and a dark piece of tissue."""
    rng = np.random.default_rng(1)
    pixels = np.full((height, width, 3), GLASS, np.uint8)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = PALE
    pixels[height // 2 : height // 2 + 9, width // 2 : width // 2 + 20] = DARK
    return pixels - rng.integers(0, 3, pixels.shape, np.uint8)


def test_tissue_is_what_differs_from_glass_and_its_surroundings() -> None:
    pixels = slide(90, 120)
    valid = np.ones((90, 120), np.float32)
    found = Tissue(pixels, valid, FILL)[:]
    expected = np.zeros((90, 120), bool)
    expected[28:47, 28:62] = expected[43:56, 58:82] = True
    assert np.array_equal(found, expected)
    valid[:, :40] = 0
    assert np.array_equal(Tissue(pixels, valid, FILL)[:], _cut(pixels, 40))


def test_glass_at_the_borders_of_the_data_is_glass() -> None:
    """There the thumbnail mixes it with the colour of no data."""
    pixels = slide(90, 120)
    valid = np.ones((90, 120), np.float32)
    valid[:, [0, -1]], valid[[0, -1]] = 0.6, 0.02
    wanted = Tissue(pixels, np.ones((90, 120), np.float32), FILL)[:]
    part = valid[..., None]
    mixed = np.rint(part * pixels + (1 - part) * FILL).astype(np.uint8)
    assert np.array_equal(Tissue(mixed, valid, FILL)[:], wanted)
    pixels[40:50, 0] = DARK
    wanted[38:52, :3] = True
    mixed = np.rint(part * pixels + (1 - part) * FILL).astype(np.uint8)
    assert np.array_equal(Tissue(mixed, valid, FILL)[:], wanted)


def _cut(pixels: NDArray[np.uint8], column: int) -> NDArray[np.bool_]:
    """The mask of the part from a column on, and nothing before."""
    part = pixels[:, column:]
    found = np.zeros(pixels.shape[:2], bool)
    found[:, column:] = Tissue(part, np.ones(part.shape[:2], np.float32), FILL)[:]
    return found


@given(st.integers(1, 700), st.integers(0, 2**20))
@settings(max_examples=20)
def test_tissue_does_not_depend_on_the_rows_that_are_asked_for(height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = slide(height, 30)
    pixels[rng.random((height, 30)) < 0.05] = DARK
    tissue = Tissue(pixels, np.ones((height, 30), np.float32), FILL)
    cuts = np.unique(np.concatenate([[0, height], rng.integers(0, height + 1, 4)]))
    parts = [tissue[a:b] for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)]
    assert np.array_equal(np.concatenate(parts), tissue[:])


@pytest.mark.parametrize("colour", [GLASS, (20, 20, 40)], ids=["nothing but glass", "fluorescence"])
def test_a_mask_is_never_empty(colour: tuple[int, int, int]) -> None:
    valid = np.ones((40, 50), np.float32)
    valid[5:9] = 0
    assert np.array_equal(Tissue(np.full((40, 50, 3), colour, np.uint8), valid, FILL)[:], valid > 0)


def test_memory_does_not_follow_the_height(tmp_path: Path) -> None:
    size = (8192, 1024)
    rows = RowsOnDisk(tmp_path, (*size, 3), np.dtype(np.uint8))
    valid = RowsOnDisk(tmp_path, size, np.dtype(np.float32))
    for part in bands(size[0]):
        rows.append(slide(part.stop - part.start, size[1]))
        valid.append(np.ones((part.stop - part.start, size[1]), np.float32))
    tracemalloc.start()
    tissue = Tissue(rows, valid, FILL)
    assert sum(int(tissue[part].sum()) for part in bands(size[0])) > 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size[0] * size[1]  # a byte a pixel: the mask alone, had it been whole

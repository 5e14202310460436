"""Reading a plan's patches: every pixel of the file once, the same patches whatever is kept in memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.lanes import ahead
from model.predictor import PatchBatch
from raster.geometry import Region, Size
from raster.grid import WorkingGrid, make_lattice
from raster.image import ImageRef, open_image
from raster.resample import resample
from raster.source import Source
from tests.raster.svs import write_svs
from worker.batches import PatchReader, Shot, in_groups, shots
from worker.counts import pixels_needed, windows_of
from worker.placement import Placement, place
from worker.plan import Plan

FILL = np.array([230, 220, 225], np.uint8)
PATCH = 128
WIDTH, HEIGHT = 2400, 4800
BYTES = WIDTH * HEIGHT * 3


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    full = np.kron(rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    whole = Region(0, 0, WIDTH, HEIGHT)
    coarse = resample(full, whole, (0, 0, WIDTH, HEIGHT), Size(WIDTH // 4, HEIGHT // 4))
    return write_svs(tmp_path_factory.mktemp("slide") / "a.svs", [full, coarse])


class Reading:
    """One image read as the pipeline reads it, all cells examined with all fields of view."""

    def __init__(self, path: Path, fovs: tuple[int, ...], ratio: float, cache_bytes: int, block: int) -> None:
        self.source = Source(lambda: open_image(ImageRef(path)), lambda values: values, FILL, cache_bytes)
        self.info = self.source.info
        self.grid = WorkingGrid(Size(self.info.width, self.info.height), (ratio, ratio))
        self.lattice = make_lattice(self.grid.size, PATCH, fovs, 0.25)
        whole = Region(0, 0, self.info.width, self.info.height)
        self.placement: Placement = place(self.grid, self.lattice, whole, 1, block)
        self.reader = PatchReader(self.source, self.grid, self.lattice, self.placement)
        shape = (self.lattice.rows, self.lattice.columns)
        weights = np.full((len(fovs), *shape), 1 / len(fovs), np.float32)
        choice, reason = np.zeros(shape, np.int8), np.zeros(shape, np.uint8)
        self.plan = Plan("mixed", len(fovs), reason, choice, np.ones(shape, np.float32), weights, reason.size)

    def batches(self) -> Iterator[PatchBatch]:
        tasks = ((block, group) for block in self.placement.blocks for group in in_groups(shots(self.plan, block), 4))
        with ThreadPoolExecutor(2) as executor:
            for _, (batch, _) in ahead(tasks, lambda task: self.reader.read(*task, 4), executor, 6):
                yield batch

    def needed(self) -> int:
        def level_of(fov: int) -> int:
            return self.source.level_for(self.reader.plane(fov).scale)

        return pixels_needed(windows_of(self.plan, self.lattice), self.grid, self.info, level_of)


@pytest.mark.parametrize("fovs", [(128, 256, 512), (128, 192, 256, 384, 512)], ids=["D=3", "D=5"])
def test_a_dense_plan_decodes_what_it_needs_once(slide: Path, fovs: tuple[int, ...]) -> None:
    # Not enough for all, even of level 0: least recently used first out, D = 5 decodes almost everything twice.
    reading = Reading(slide, fovs, 1.0, cache_bytes=BYTES * 4 // 5, block=10)
    for _ in reading.batches():
        pass
    assert reading.source.take_pixels_decoded() <= 1.10 * reading.needed()
    reading.source.close()


def test_patches_do_not_depend_on_what_was_kept(slide: Path) -> None:
    rich = Reading(slide, (128, 512), 1.2425, cache_bytes=BYTES, block=10)
    poor = Reading(slide, (128, 512), 1.2425, cache_bytes=BYTES // 5, block=10)
    for one, other in zip(rich.batches(), poor.batches(), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    rich.source.close()
    poor.source.close()


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_block_reads_in_rounds_is_kept_until_it_is_left(slide: Path, kept: bool) -> None:
    """Another block is read between two of its rounds; without `on`, that is where the source lets go of it."""
    reading = Reading(slide, (128, 256), 1.0, cache_bytes=BYTES, block=10)
    one, other = list(reading.placement.blocks)[:2]
    first = next(in_groups(shots(reading.plan, one), 4))
    with reading.reader.on(one) if kept else nullcontext():
        reading.reader.read(one, first, 4)
        for group in in_groups(shots(reading.plan, other), 4):
            reading.reader.read(other, group, 4)
        reading.source.take_pixels_decoded()
        reading.reader.read(one, first, 4)
        assert (reading.source.take_pixels_decoded() == 0) == kept
    reading.source.close()


@given(count=st.integers(0, 60), batch=st.integers(1, 9))
def test_groups_are_few_and_as_even_as_can_be(count: int, batch: int) -> None:
    several = [Shot(0, column, (0,), (1.0,), 1.0) for column in range(count)]
    found = list(in_groups(iter(several), batch))
    assert [shot for group in found for shot in group] == several
    assert len(found) == -(-count // batch)
    sizes = {len(group) for group in found}
    assert max(sizes, default=0) <= batch
    assert max(sizes, default=0) - min(sizes, default=0) <= 1

"""The lattice covers the working grid and keeps windows in phase; blocks partition its cells."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raster.geometry import Region, Size
from raster.grid import WorkingGrid, common_step, cut_blocks, make_lattice

overlaps = st.floats(0, 0.75)
banks = st.sampled_from([(32,), (32, 64), (32, 64, 128), (32, 48), (32, 43, 54, 65), (32, 33)])


@given(st.integers(1, 700), st.integers(1, 700), banks, overlaps)
def test_every_working_pixel_lies_in_a_window(width, height, bank, overlap):
    lattice = make_lattice(Size(width, height), 32, bank, overlap)
    covered = np.zeros((height, width), bool)
    for row in range(lattice.rows):
        for column in range(lattice.columns):
            window = lattice.window(column, row).intersection(Region(0, 0, width, height))
            assert not window.empty
            covered[window.slices()] = True
    assert covered.all()


@given(banks, overlaps)
def test_the_stride_keeps_windows_in_phase_and_gives_the_overlap_asked_for(bank, overlap):
    lattice = make_lattice(Size(5000, 5000), 32, bank, overlap)
    assert lattice.overlap >= overlap - 1 / 32
    if lattice.aligned:
        assert all((lattice.stride / Fraction(fov, 32)).denominator == 1 for fov in bank)
        assert lattice.stride + common_step(32, bank) > 32 * (1 - overlap)


@pytest.mark.parametrize(
    ("bank", "step"), [((32,), 1), ((32, 64), 2), ((32, 64, 128), 4), ((32, 48), 3), ((32, 33), 33)]
)
def test_common_step(bank, step):
    assert common_step(32, bank) == step


@given(st.integers(1, 500), overlaps, st.data())
def test_cells_touching_names_exactly_the_cells_whose_windows_meet_the_region(length, overlap, data):
    lattice = make_lattice(Size(length, 1), 32, (32,), overlap)
    x0 = data.draw(st.integers(0, length - 1))
    region = Region.between(x0, 0, data.draw(st.integers(x0 + 1, length)), 1)
    meeting = [c for c in range(lattice.columns) if not lattice.window(c, 0).intersection(region).empty]
    assert list(lattice.cells_touching(region)[0]) == meeting


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(1, 6))
def test_blocks_partition_the_cells(columns, rows, side, least):
    seen = np.zeros((rows, columns), int)
    blocks = cut_blocks(range(columns), range(rows), side, least)
    for block in blocks:
        seen[block.rows.start : block.rows.stop, block.columns.start : block.columns.stop] += 1
        assert len(block.rows) >= min(rows, least)
        assert len(block.columns) >= min(columns, least)
    assert (seen == 1).all()
    assert len(list(blocks)) == len(blocks)


@pytest.mark.parametrize(
    ("side", "ratio", "working"), [(100, 1.0, 100), (100, 2.7, 38), (1, 2.48, 1), (1000, 0.37, 2703)]
)
def test_the_working_grid_covers_the_image(side, ratio, working):
    assert WorkingGrid(Size(side, side), (ratio, ratio)).size == Size(working, working)


def test_flat_blocks_have_as_many_cells_in_fewer_rows() -> None:
    square, flat = (cut_blocks(range(43), range(43), 10, 1, flat=flat) for flat in (False, True))
    assert {len(span) for span in square.row_spans} == {8, 9}
    assert {len(span) for span in flat.row_spans} == {2, 3}
    assert max(map(len, flat.column_spans)) * max(map(len, flat.row_spans)) <= 10 * 10
    assert [cell for span in flat.row_spans for cell in span] == list(range(43))


def test_a_row_of_flat_blocks_holds_no_more_cells_in_a_wide_image_than_in_a_narrow_one() -> None:
    narrow, wide = (cut_blocks(range(n), range(334), 6, 1, flat=True) for n in (100, 334))
    assert [max(map(len, blocks.row_spans)) for blocks in (narrow, wide)] == [6, 2]
    assert max(map(len, wide.column_spans)) * 2 <= 6 * 6

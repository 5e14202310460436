"""Which pixels a plan needs, against windows that were written down by hand."""

import numpy as np

from bench.needed import in_whole_tiles, nearest_level, paint


def test_one_cell_needs_its_window_and_no_more() -> None:
    mask = np.zeros((100, 100), bool)
    cells = np.zeros((3, 3), bool)
    cells[1, 2] = True
    paint(mask, cells, 24, 32, 32, (1.0, 1.0))
    expected = np.zeros((100, 100), bool)
    expected[24:56, 48:80] = True
    assert (mask == expected).all()


def test_a_larger_field_of_view_is_concentric_and_cut_at_the_border() -> None:
    mask = np.zeros((100, 100), bool)
    paint(mask, np.ones((1, 1), bool), 24, 32, 64, (1.0, 1.0))
    assert mask.sum() == 48 * 48 and mask[:48, :48].all()


def test_coarser_levels_take_every_pixel_that_the_window_touches() -> None:
    mask = np.zeros((30, 30), bool)
    cells = np.zeros((1, 2), bool)
    cells[0, 1] = True
    paint(mask, cells, 10, 10, 10, (0.3, 0.3))
    assert mask.sum() == 9 and mask[0:3, 3:6].all()


def test_overlapping_windows_are_counted_once() -> None:
    mask = np.zeros((64, 64), bool)
    paint(mask, np.ones((2, 2), bool), 24, 32, 32, (1.0, 1.0))
    assert mask.sum() == 56 * 56


def test_the_nearest_level_may_be_two_percent_coarser_and_no_more() -> None:
    sizes = [(1000, 1000), (498, 498), (250, 250)]
    assert nearest_level(sizes, (2.0, 2.0)) == 1
    assert nearest_level(sizes, (1.9, 1.9)) == 0
    assert nearest_level(sizes, (8.0, 8.0)) == 2
    assert nearest_level(sizes, (0.5, 0.5)) == 0


def test_whole_tiles_are_cut_at_the_border() -> None:
    mask = np.zeros((50, 70), bool)
    mask[31, 31] = mask[40, 65] = True
    assert in_whole_tiles(mask, (32, 32)) == 32 * 32 + 18 * 6

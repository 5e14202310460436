"""Where the mask's pixels come from: every one from exactly one piece, every piece from pixels that its owners have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tree import make_tree
from raster.geometry import Region, Size
from raster.grid import WorkingGrid, make_lattice
from raster.overviews import TILE
from worker.placement import Axis, place

sides = st.integers(1, 900)
ratios = st.sampled_from([0.37, 1.0, 1.06, 2.0, 2.7])


@st.composite
def placements(draw):
    image = Size(draw(sides), draw(sides))
    grid = WorkingGrid(image, (draw(ratios), draw(ratios)))
    lattice = make_lattice(grid.size, 32, (32, 64), draw(st.sampled_from([0.0, 0.25, 0.5, 0.75])))
    x, y = draw(st.integers(0, image.width - 1)), draw(st.integers(0, image.height - 1))
    roi = Region.between(x, y, draw(st.integers(x + 1, image.width)), draw(st.integers(y + 1, image.height)))
    return place(
        grid, lattice, roi, draw(st.sampled_from([1, 2, 8])), draw(st.integers(1, 9)), flat=draw(st.booleans())
    )


@st.composite
def placements_of_trees(draw):
    """In blocks of roots, whose windows hold those of all nodes under them."""
    image = Size(draw(sides), draw(sides))
    grid = WorkingGrid(image, (draw(ratios), draw(ratios)))
    fovs = draw(st.sampled_from([(16, 32), (16, 32, 64, 128), (16, 48), (20, 60, 300)]))
    tree = make_tree(grid.size, fovs[0], fovs, draw(st.sampled_from([0.0, 0.25, 0.5, 0.625, 0.75])))
    x, y = draw(st.integers(0, image.width - 1)), draw(st.integers(0, image.height - 1))
    roi = Region.between(x, y, draw(st.integers(x + 1, image.width)), draw(st.integers(y + 1, image.height)))
    m, block = draw(st.sampled_from([1, 2, 8])), draw(st.integers(1, 3))
    return tree.scales, place(grid, tree.roots, roi, m, block, coarsest=tree.scales[-1])


@given(placements_of_trees())
@settings(max_examples=150, deadline=None)
def test_a_piece_of_a_tree_reads_pixels_of_every_scale_that_all_its_contributors_own(found):
    scales, placement = found
    assert_owned(placement, scales)


def assert_owned(placement, scales):
    """Whatever a piece reads is some block's, and all of these blocks are its owners."""
    for piece in placement.pieces():
        owners = set(piece.owners)
        for scale in scales:
            region = placement.region(piece, scale)
            covered = np.zeros(region.size.shape, bool)
            for block in placement.blocks:
                part = placement.support(block, scale).intersection(region)
                assert part.empty or (block.row, block.column) in owners
                covered[part.slices(region.x, region.y)] = True
            assert covered.all()


@pytest.mark.parametrize("downsample", [1, 2, 8])
@pytest.mark.parametrize("ratio", [0.9, 1.0, 1.3, 2.7])
def test_no_block_is_too_small_for_what_coarse_pixels_reach(ratio, downsample):
    """Overlaps at which the last pixels of a scale reach just into a third block, were blocks smaller."""
    image = Size(int(1800 * ratio) + 13, 1)
    grid = WorkingGrid(image, (ratio, ratio))
    for overlap in np.linspace(0.5, 0.75, 11):
        tree = make_tree(grid.size, 20, (20, 60, 300), float(overlap))
        assert_owned(place(grid, tree.roots, Region.of(image), downsample, 1, coarsest=15), tree.scales)


@given(placements())
@settings(max_examples=150, deadline=None)
def test_pieces_partition_the_mask(placement):
    seen = np.zeros(placement.mask_size.shape, np.uint8)
    for piece in placement.pieces():
        seen[piece.region_m.slices()] += 1
    assert (seen == 1).all()


@given(placements())
@settings(max_examples=80, deadline=None)
def test_no_interior_is_higher_than_a_tile_and_none_lies_in_two_rows_of_them(placement):
    for rows in placement.row_spans:
        assert len(rows.owners) > 1 or rows.start_m // TILE == (rows.end_m - 1) // TILE


@given(placements())
@settings(max_examples=150, deadline=None)
def test_a_piece_reads_only_what_all_its_contributors_own(placement):
    """Every block whose patches touch a working pixel that the piece reads is among the piece's owners."""
    supports = [(block, placement.support(block)) for block in placement.blocks]
    for piece in placement.pieces():
        region = placement.region(piece)
        touching = {(b.row, b.column) for b, support in supports if not support.intersection(region).empty}
        assert touching <= set(piece.owners)
        covered = np.zeros(region.size.shape, bool)
        for block, support in supports:
            if (block.row, block.column) in piece.owners:
                covered[support.intersection(region).slices(region.x, region.y)] = True
        assert covered.all()


@given(placements())
@settings(max_examples=80, deadline=None)
def test_pieces_of_a_block_are_those_that_name_it(placement):
    for block in placement.blocks:
        named = {p.name for p in placement.pieces() if (block.row, block.column) in p.owners}
        assert {p.name for p in placement.pieces_of(block)} == named


@given(sides, ratios)
def test_taps_keep_the_place_of_pixel_centres(length, ratio):
    axis = Axis(0, length, 1, ratio, WorkingGrid(Size(length, 1), (ratio, 1.0)).size.width)
    taps = axis.taps(0, length)
    place = taps.first * (1 - taps.t) + taps.second * taps.t
    wanted = (np.arange(length) + 0.5) / ratio - 0.5
    inside = (wanted >= 0) & (wanted <= axis.size_w - 1)
    assert np.allclose(place[inside], wanted[inside], atol=1e-4)
    assert taps.first.min() >= 0
    assert taps.second.max() < axis.size_w


def test_the_last_square_of_a_smaller_mask_is_cut_at_the_border():
    axis = Axis(0, 13, 4, 1.0, 13)
    assert axis.length_m == 4
    assert axis.l0(3, 4) == (12, 13)

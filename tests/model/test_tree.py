"""The tree of fields of view: squares, windows, lattices, and plans within a budget."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import OptionInvalid
from model.detail import gradient, means, planned_needs
from model.tree import Node, make_tree, plan_leaves
from raster.geometry import Region, Size
from raster.grid import make_lattice

SCALES = st.sampled_from([(1, 2), (1, 2, 4), (1, 3), (1, 2, 6), (1, 2, 4, 8)])


@st.composite
def trees(draw):
    size = Size(draw(st.integers(1, 900)), draw(st.integers(1, 900)))
    patch = draw(st.sampled_from([32, 33, 64]))
    fovs = tuple(patch * scale for scale in draw(SCALES))
    return make_tree(size, patch, fovs, draw(st.sampled_from([0.0, 0.25, 0.5, 0.75])))


def nodes(tree, level):
    rows, columns = tree.grid(level)
    return [Node(level, row, column) for row in range(rows) for column in range(columns)]


@given(trees())
def test_children_share_out_the_cells_of_their_parent(tree):
    for level in range(1, len(tree.scales)):
        for node in nodes(tree, level)[:20]:
            own = np.zeros(tree.grid(0), int)
            own[tree.cells_of(node)] += 1
            for child in tree.children(node):
                own[tree.cells_of(child)] -= 1
            assert not own.any()


@given(trees())
def test_every_window_lies_in_its_parents_and_on_the_pixels_of_its_scale(tree):
    for level in range(1, len(tree.scales)):
        for node in nodes(tree, level)[:20]:
            outer = tree.window(node)
            assert outer.x % tree.scales[level] == outer.y % tree.scales[level] == 0
            for child in tree.children(node):
                assert outer.contains(tree.window(child))


@given(trees())
def test_the_windows_of_a_level_are_its_lattices_and_cover_the_image(tree):
    for level, lattice in ((0, tree.cells), (tree.top, tree.roots)):
        assert (lattice.rows, lattice.columns) == tree.grid(level)
        assert tree.window(Node(level, 0, 0)).x <= 0
        last = tree.window(Node(level, lattice.rows - 1, lattice.columns - 1))
        assert last == lattice.window(lattice.columns - 1, lattice.rows - 1)
        assert last.x1 >= tree.size.width
        assert last.y1 >= tree.size.height
        assert (lattice.rows - 1) * tree.side(level) < tree.size.height


@given(trees(), st.data())
def test_cells_touching_are_those_whose_windows_do(tree, data):
    x, y = data.draw(st.integers(0, tree.size.width - 1)), data.draw(st.integers(0, tree.size.height - 1))
    columns, rows = tree.roots.cells_touching(Region(x, y, 1, 1))
    for row in range(tree.roots.rows):
        for column in range(tree.roots.columns):
            touches = not tree.roots.window(column, row).intersection(Region(x, y, 1, 1)).empty
            assert touches == (row in rows and column in columns)


@settings(max_examples=60)
@given(trees(), st.floats(0, 1), st.integers(0, 2**31))
def test_a_plan_owns_every_examined_cell_once_and_keeps_its_budget(tree, share, seed):
    rng = np.random.default_rng(seed)
    need = [rng.random(tree.grid(level)).astype(np.float32) for level in range(len(tree.scales))]
    examined = rng.random(tree.grid(0)) < rng.choice([0.2, 0.9, 1.0])
    dense = tree.dense.rows * tree.dense.columns
    leaf, _ = plan_leaves(tree, need, examined, share, dense)
    owners = np.zeros(tree.grid(0), int)
    leaves = list(tree.leaves(leaf, examined))
    for node in leaves:
        owners[tree.cells_of(node)] += 1
    assert (owners[examined] == 1).all()
    roots = int(tree.pooled(examined, tree.top).sum())
    assert len(leaves) <= max(roots, share * dense if share < 1 else examined.sum())


def depth(tree, need, row, column, threshold):
    """The level at which a walk from the root to this cell stops."""
    level = tree.top
    while level and need[level][row // tree.scales[level], column // tree.scales[level]] > threshold:
        level -= 1
    return level


@given(trees(), st.integers(0, 2**31))
def test_the_threshold_decides_alone(tree, seed):
    rng = np.random.default_rng(seed)
    need = [rng.random(tree.grid(level)).astype(np.float32) for level in range(len(tree.scales))]
    everywhere = np.ones(tree.grid(0), bool)
    leaf, threshold = plan_leaves(tree, need, everywhere, 0.5, tree.dense.rows * tree.dense.columns)
    for row, column in np.argwhere(everywhere)[:50].tolist():
        # Nodes that ask for exactly the threshold may fall on either side of the budget.
        least = depth(tree, need, row, column, np.nextafter(threshold, -np.inf))
        assert least <= leaf[row, column] <= depth(tree, need, row, column, threshold)


def test_the_whole_budget_buys_the_finest_level_and_none_buys_the_roots():
    tree = make_tree(Size(500, 300), 32, (32, 64, 128), 0.25)
    need = [np.ones(tree.grid(level), np.float32) for level in range(3)]
    everywhere = np.ones(tree.grid(0), bool)
    assert (plan_leaves(tree, need, everywhere, 1.0, 1000)[0] == 0).all()
    assert (plan_leaves(tree, need, everywhere, 0.0, 1000)[0] == 2).all()


@given(trees())
def test_the_dense_lattice_is_that_of_dense_coverage(tree):
    fovs = tuple(tree.patch * scale for scale in tree.scales)
    for overlap in (0.0, 0.25, 0.5, 0.75):
        dense = make_lattice(tree.size, tree.patch, fovs, overlap)
        if dense.stride == tree.stride:
            assert (tree.dense.rows, tree.dense.columns) == (dense.rows, dense.columns)
            assert tree.dense.window(0, 0) == dense.window(0, 0)


@pytest.mark.parametrize("fovs", [(64,), (64, 96), (64, 128, 320), (32, 64)])
def test_banks_that_do_not_nest_are_refused(fovs):
    with pytest.raises(OptionInvalid, match="nest"):
        make_tree(Size(100, 100), 64, fovs, 0.25)


@given(trees(), st.integers(1, 40))
def test_means_of_a_constant_are_that_constant(tree, step):
    shape = (-(-tree.size.height // step), -(-tree.size.width // step))
    for level in range(len(tree.scales)):
        found = means(np.full(shape, 3.0, np.float32), step, tree, level)
        assert found.shape == tree.grid(level)
        assert np.allclose(found, 3.0)


class Wanted:
    """What F_theta would say, of rows."""

    def __init__(self, probabilities):
        self._probabilities = probabilities

    def __getitem__(self, rows):
        return self._probabilities[:, rows]


@given(trees(), st.integers(1, 40), st.booleans(), st.integers(0, 2**31))
def test_needs_are_the_means_of_the_whole_thumbnail(tree, step, steered, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(-(-length // step) for length in tree.size.shape)
    thumbnail, valid = rng.integers(0, 255, (*shape, 3), np.uint8), rng.choice([0, 0.5, 1], shape).astype(np.float32)
    wants = rng.random((len(tree.scales), *shape), np.float32)
    found = planned_needs(tree, thumbnail, valid, step, Wanted(wants) if steered else None)
    change = gradient(thumbnail, valid)
    for level in range(1, len(tree.scales)):
        expected = means(change, step, tree, level) * tree.scales[level]
        if steered:
            expected = expected * means(wants[:level].sum(axis=0), step, tree, level)
        assert np.allclose(found[level], expected, rtol=1e-5, atol=1e-5)


def test_needs_are_highest_where_the_thumbnail_changes_and_f_theta_wants_detail():
    tree = make_tree(Size(1024, 1024), 64, (64, 128, 256), 0.25)
    thumbnail = np.full((64, 64, 3), 90, np.uint8)
    thumbnail[:20:2, :20] = 200
    thumbnail[40::2, 40:] = 200
    plain = planned_needs(tree, thumbnail, None, 16, None)
    assert plain[1][0, 0] > 0
    assert plain[1][0, -1] == 0
    probabilities = np.zeros((3, 64, 64), np.float32)
    probabilities[0, :32], probabilities[2, 32:] = 1, 1
    steered = planned_needs(tree, thumbnail, None, 16, Wanted(probabilities))
    assert steered[1][0, 0] == plain[1][0, 0]
    assert steered[1][-1, -1] == 0


def test_the_edge_of_the_data_is_no_detail():
    thumbnail = np.full((8, 8, 1), 10, np.uint8)
    thumbnail[:, 4:] = 200
    valid = np.ones((8, 8), np.float32)
    assert gradient(thumbnail, valid).any()
    valid[:, 4:] = 0
    assert not gradient(thumbnail, valid).any()

"""Stitching of a tree's scores: constants, equality with the dense lattice, partial refinement, fusion."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.accumulator import Accumulator, BlockSums
from model.chooser import Candidate
from model.refine import FINE_SHARE, change, entropy_wanted, handed_down, kept_from, mark, refine
from model.sums import OpenSums, ScaleSums
from model.tree import Node, make_tree
from raster.geometry import Region, Size

CPU = torch.device("cpu")
K = 3


def scene(size, seed=0):
    """Probabilities (K, height, width) as a network of any field of view might see them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(3 * torch.rand((K, *size.shape), generator=generator), 0)


def stitched(tree, leaves):
    """(K, height, width) and the weights, of what `refine` kept."""

    def opened(scale):
        size = Size(*(-(-side // scale) for side in (tree.size.width, tree.size.height)))
        return Accumulator(K, size, tree.patch, tree.overlap_px, CPU)

    sums = BlockSums(opened)
    for node, scores, level in leaves:
        window, scale = tree.window(node), tree.scales[level]
        sums.at(scale).add_patch(scores, window.x // scale, window.y // scale)
    parts = tuple(ScaleSums(own.whole, scale) for scale, own in sums.by_scale.items())
    total = OpenSums(Region.of(tree.size), parts).working()
    return total[:-1] / total[-1:], total[-1]


def refined(tree, forward, need, threshold, matters=lambda node: True):
    """By a plain need, of which nothing is learnt."""

    def wanted(families):
        return [
            [Candidate(*pair) for pair in zip(children, need(node, own, children), strict=True)]
            for node, own, children in families
        ]

    return refined_by(tree, forward, wanted, threshold, matters)


def refined_by(tree, forward, wanted, threshold, matters=lambda node: True):
    kept, run = [], []
    roots = [Node(tree.top, r, c) for r in range(tree.roots.rows) for c in range(tree.roots.columns)]
    walk = refine(
        tree,
        [(node, forward(node)) for node in roots],
        wanted,
        threshold,
        lambda nodes: map(forward, nodes),
        lambda *one: kept.append(one),
        matters=matters,
    )
    run.extend(walk)
    return kept, run


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([(1, 2), (1, 2, 4), (1, 3)]),
    st.sampled_from([0.0, 0.25, 0.6]),
    st.integers(0, 2**31),
)
def test_a_constant_stays_constant_however_the_tree_is_cut(width, height, scales, overlap, seed):
    tree = make_tree(Size(width, height), 32, tuple(32 * s for s in scales), overlap)
    rng = np.random.default_rng(seed)
    constant = torch.tensor([0.2, 0.5, 0.3])[:, None, None].expand(K, 32, 32).contiguous()
    kept, _ = refined(tree, lambda node: constant, lambda node, own, children: rng.random(len(children)), 0.5)
    scores, weights = stitched(tree, kept)
    assert weights.min() > 0
    assert torch.allclose(scores, constant[:, :1, :1], atol=1e-5)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_leaves_of_the_finest_level_alone_are_the_dense_lattice(overlap):
    tree = make_tree(Size(211, 150), 32, (32, 64), overlap)
    margin = 4 * 32
    world = scene(Size(211 + 2 * margin, 150 + 2 * margin))
    nodes = [Node(0, r, c) for r in range(tree.cells.rows) for c in range(tree.cells.columns)]

    def cut(node):
        window = tree.window(node).shifted(margin, margin)
        return world[(slice(None), *window.slices())]

    scores, weights = stitched(tree, [(node, cut(node), 0) for node in nodes])
    grown = Size(211 + 2 * margin, 150 + 2 * margin)
    dense = Accumulator(K, grown, 32, tree.overlap_px, CPU)
    windows = [tree.cells.window(node.column, node.row).shifted(margin, margin) for node in nodes]
    origins = np.array([[window.x, window.y] for window in windows])
    dense.add(torch.stack([cut(node) for node in nodes]), origins, np.ones(len(nodes), np.float32))
    total = torch.from_numpy(dense.part(Region.of(tree.size).shifted(margin, margin)))
    assert torch.equal(weights, total[-1])
    assert torch.allclose(scores, total[:-1] / total[-1:], atol=1e-6)


@pytest.mark.parametrize("scales", [(1, 2, 4), (1, 3)])
def test_a_ramp_is_handed_down_as_the_same_ramp(scales):
    tree = make_tree(Size(900, 900), 32, tuple(32 * s for s in scales), 0.25)
    parent = Node(tree.top, 1, 1)

    def ramp(node):
        window, scale = tree.window(node), tree.scales[node.level]
        x = window.x + (torch.arange(32) + 0.5) * scale
        y = window.y + (torch.arange(32) + 0.5) * scale
        return torch.stack([x.expand(32, 32), y[:, None].expand(32, 32), (x + y[:, None])]).float()

    inner = slice(2, -2)
    for child in tree.children(parent):
        given_down = handed_down(tree, parent, child, ramp(parent))
        assert torch.allclose(given_down[:, inner, inner], ramp(child)[:, inner, inner], atol=1e-2)


@pytest.mark.parametrize(("overlap", "scales", "level"), [(0.25, (1, 2, 4), 2), (0.75, (1, 3), 0), (0.1, (1, 3), 0)])
def test_what_is_not_run_keeps_the_parents_pixels_where_windows_begin_on_them(overlap, scales, level):
    tree = make_tree(Size(900, 900), 32, tuple(32 * s for s in scales), overlap)
    parent = Node(tree.top, 1, 1)
    scores = scene(Size(32, 32))
    for child in tree.children(parent):
        found, own = kept_from(tree, parent, child, scores)
        window, scale = tree.window(child), tree.scales[own]
        assert own == level
        assert (window.x % scale, window.y % scale, found.shape[1] * scale) == (0, 0, window.width)
        given_down = handed_down(tree, parent, child, scores)
        if own == child.level:
            assert torch.equal(found, given_down)
        else:
            ratio = tree.scales[own] // tree.scales[child.level]
            means = given_down.unfold(1, ratio, ratio).unfold(2, ratio, ratio).mean((3, 4))
            assert (found - means).abs().mean() < (found - means.flip(1)).abs().mean() / 2


def test_fine_and_coarse_are_fused_from_level_to_level():
    tree = make_tree(Size(128, 128), 32, (32, 64, 128), 0.0)

    def flat(node):
        return torch.full((K, 32, 32), float(node.level))

    kept, run = refined(tree, flat, lambda node, own, children: [1.0] * len(children), 0.5)
    assert len(run) == 1 + 4 + 16
    expected = (1 - FINE_SHARE) * (FINE_SHARE * 1 + (1 - FINE_SHARE) * 2)
    assert all(torch.allclose(scores, torch.tensor(expected)) for _, scores, _ in kept)


def test_children_are_decided_one_by_one_and_the_rest_keeps_the_parent():
    tree = make_tree(Size(64, 64), 32, (32, 64), 0.0)
    wanted = Node(0, 0, 1)
    kept, run = refined(
        tree,
        lambda node: torch.full((K, 32, 32), float(node.level == 0)),
        lambda node, own, children: [float(child == wanted) for child in children],
        0.5,
    )
    assert run == [Node(1, 0, 0), wanted]
    scores, _ = stitched(tree, kept)
    # Half a coarse pixel away from where the two meet.
    assert torch.allclose(scores[:, :31, 33:], torch.tensor(FINE_SHARE))
    assert not scores[:, 33:].any()
    assert not scores[:, :, :31].any()
    leaf = np.full(tree.grid(0), -1, np.int8)
    for node in run:
        mark(tree, leaf, node)
    assert leaf.tolist() == [[1, 0], [1, 1]]


def needs_of(tree, node, own):
    return [one.need for one in entropy_wanted(tree)([(node, own, list(tree.children(node)))])[0]]


def test_need_is_entropy_times_scale_where_the_prediction_wavers():
    tree = make_tree(Size(100, 100), 32, (32, 64), 0.0)
    own = torch.tensor([1.0, 0.0, 0.0])[:, None, None].repeat(1, 32, 32)
    own[:, :16, 16:] = 1 / 3
    assert needs_of(tree, Node(1, 0, 0), own) == pytest.approx([0, 2 * np.log(3), 0, 0])
    looks = [one.look for one in entropy_wanted(tree)([(Node(1, 0, 0), own, list(tree.children(Node(1, 0, 0))))])[0]]
    assert np.allclose(looks[0], [1, 0, 0])
    assert np.allclose(looks[1], 1 / 3)
    # Of a child at the border only what lies inside the image counts.
    own = torch.tensor([1.0, 0.0, 0.0])[:, None, None].repeat(1, 32, 32)
    own[:, :, 18:] = 1 / 3
    assert needs_of(tree, Node(1, 1, 1), own) == pytest.approx([0] * 4)


def test_change_is_that_of_the_square_inside_the_image():
    tree = make_tree(Size(100, 100), 32, (32, 64), 0.25)
    before, after = torch.zeros((K, 32, 32)), torch.zeros((K, 32, 32))
    after[:, :4] = 1
    assert change(tree, Node(0, 1, 1), before, after) == 0
    after[0, 4:16] = 0.5
    assert change(tree, Node(0, 1, 1), before, after) == pytest.approx(0.25)


@pytest.mark.parametrize("mended", [True, False])
def test_one_root_learns_whether_a_finer_look_pays_and_no_other_does(mended):
    """Two roots that the coarse prediction is equally and only a little unsure of; one of them is wrong everywhere."""
    tree = make_tree(Size(512, 256), 32, (32, 256), 0.0)
    lawn, pond = (torch.tensor(p)[:, None, None].repeat(1, 32, 32) for p in ([0.02, 0.98, 0.0], [0.98, 0.02, 0.0]))

    def forward(node):
        return pond if node.level == 0 and mended and node.column < 8 else lawn

    entropy = float(torch.special.entr(lawn[:, 0, 0]).sum())
    threshold = 1.2 * 8 * entropy
    assert len(refined(tree, forward, lambda n, o, children: [8 * entropy] * len(children), threshold)[1]) == 2
    _, run = refined_by(tree, forward, entropy_wanted(tree), threshold)
    left, right = (sum(node.level == 0 and (node.column < 8) == side for node in run) for side in (True, False))
    assert (left, right) == ((64, 2) if mended else (1, 2))

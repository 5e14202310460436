"""Covers put together strip by strip: the same as all nodes stitched at once."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.accumulator import Accumulator, BlockSums
from model.evaluation.nodes import Cover, Nodes
from model.sums import OpenSums, ScaleSums
from model.tree import make_tree
from raster.geometry import Region, Size

P, CLASSES = 16, 3


@settings(max_examples=60, deadline=None)
@given(
    fovs=st.sampled_from([(16, 32), (16, 32, 64), (16, 48), (16, 64), (16, 32, 96)]),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    width=st.integers(1, 210),
    height=st.integers(1, 300),
    seed=st.integers(0, 1000),
)
def test_strips_of_a_cover_are_what_stitching_in_one_go_gives(fovs, overlap, width, height, seed):
    rng = np.random.default_rng(seed)
    tree = make_tree(Size(width, height), P, fovs, overlap)
    shapes = [(*tree.grid(level), P, P) for level in range(len(fovs))]
    scores = [rng.dirichlet(np.ones(CLASSES), shape).transpose(0, 1, 4, 2, 3).astype(np.float16) for shape in shapes]
    nodes = Nodes(tree, scores, seconds=0.0)
    leaf = np.full(tree.grid(0), tree.top, np.int8)
    for level in range(tree.top, 0, -1):
        leaf[tree.spread(rng.random(tree.grid(level)) < 0.5, level) & (leaf == level)] = level - 1
    strips = list(Cover(nodes).leaves(leaf))
    assert np.abs(np.concatenate([strip.scores for strip in strips], axis=1) - _stitched(nodes, leaf)).max() < 1e-5


def _stitched(nodes, leaf):
    """(K, height, width): the probabilities of the whole image, its sums held at once."""
    tree = nodes.tree

    def opened(scale):
        size = Size(-(-tree.size.width // scale), -(-tree.size.height // scale))
        return Accumulator(CLASSES, size, P, tree.overlap_px, torch.device("cpu"))

    sums = BlockSums(opened)
    for node in tree.leaves(leaf, np.ones(leaf.shape, bool)):
        window, scale = tree.window(node), tree.scales[node.level]
        sums.at(scale).add_patch(nodes.of(node), window.x // scale, window.y // scale)
    parts = tuple(ScaleSums(own.whole, scale) for scale, own in sums.by_scale.items())
    total = OpenSums(Region.of(tree.size), parts).working().numpy()
    return total[:-1] / total[-1:]

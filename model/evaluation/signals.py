"""What may decide where a tree is finer, for every node of an image: the measured signals and their controls.

A signal is an array (rows, columns) for each level. For refined coverage it belongs to the child that may be run, for
planned coverage to the parent that may be replaced.
"""

import numpy as np
from numpy.typing import NDArray

from model.datasets.classes import IGNORE
from model.detail import gradient, means
from model.evaluation.nodes import Nodes
from model.evaluation.wants import Signal
from model.metrics import confusion, mean_iou_slope
from model.tree import Node, Tree

__all__ = ["child_gradient", "gains", "node_confusions", "noise", "parents"]


def child_gradient(tree: Tree, thumbnail_HWC: NDArray[np.uint8], step: int) -> Signal:
    """Mean gradient under every child's square, times its parent's scale."""
    change = gradient(thumbnail_HWC)
    return [means(change, step, tree, level) * np.float32(tree.scales[level + 1]) for level in range(tree.top)]


def noise(tree: Tree, seed: int) -> Signal:
    """Uniform for every node: the same chance at every level."""
    random = np.random.default_rng(seed)
    return [random.random(tree.grid(level)).astype(np.float32) for level in range(len(tree.scales))]


def node_confusions(nodes: Nodes, labels_HW: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """For each level (rows, columns, 2, K, K): over a node's square, its own prediction and its parent's.

    The roots' second entry is their first. `labels_HW` are channels or IGNORE; predictions are not interpolated.
    """
    tree = nodes.tree
    K = nodes.scores[0].shape[2]
    found = [np.zeros((*tree.grid(level), 2, K, K), np.int64) for level in range(len(tree.scales))]
    for level in range(tree.top, -1, -1):
        for node in nodes.all(level):
            shown = _square(nodes, node)
            y, x = node.row * tree.side(level), node.column * tree.side(level)
            truth = labels_HW[y : y + len(shown), x : x + shown.shape[1]]
            here = found[level][node.row, node.column]
            here[0] = confusion(shown[: len(truth), : truth.shape[1]], truth, K, IGNORE)
            if level == tree.top:
                here[1] = here[0]
            for child in tree.children(node) if level else ():
                side = tree.side(level - 1)
                r, c = child.row * side - y, child.column * side - x
                part = truth[r : r + side, c : c + side]
                mine = shown[r : r + part.shape[0], c : c + part.shape[1]]
                found[level - 1][child.row, child.column, 1] = confusion(mine, part, K, IGNORE)
    return found


def gains(confusions: list[NDArray[np.int64]], total_KK: NDArray[np.int64]) -> Signal:
    """By how many points each child's own prediction raises the mean IoU over its parent's, to first order around the
    pooled confusion `total_KK`: the oracle that looks one step ahead. `confusions` as `node_confusions` gives them."""
    slope_KK = 100 * mean_iou_slope(total_KK)
    return [
        ((level[..., 0, :, :] - level[..., 1, :, :]) * slope_KK).sum(axis=(2, 3)).astype(np.float32)
        for level in confusions
    ]


def parents(tree: Tree, children: Signal) -> Signal:
    """The mean over each node's children: what planned coverage asks of a signal of children."""
    found = [np.zeros(tree.grid(0), np.float32)]
    for level in range(1, len(tree.scales)):
        need = np.zeros(tree.grid(level), np.float32)
        for row, column in np.ndindex(*tree.grid(level)):
            under = list(tree.children(Node(level, row, column)))
            need[row, column] = np.mean([children[child.level][child.row, child.column] for child in under])
        found.append(need)
    return found


def _square(nodes: Nodes, node: Node) -> NDArray[np.uint8]:
    """(side, side) the node's own classes over its square, in working pixels."""
    tree = nodes.tree
    m, S, scale = tree.margin, tree.stride, tree.scales[node.level]
    own = nodes.scores[node.level][node.row, node.column][:, m : m + S, m : m + S].argmax(axis=0).astype(np.uint8)
    shown: NDArray[np.uint8] = own.repeat(scale, 0).repeat(scale, 1)
    return shown

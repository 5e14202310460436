"""Refinement of a tree from its roots down: where the coarse prediction asks for it, and what becomes of it there.

Letters: K classes, P patch side. Scores are probabilities (K, P, P) float32 of one patch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.accumulator import Accumulator, interpolated
from model.predictor import PatchBatch, Predictor
from model.tree import Node, Tree
from raster.geometry import Region

__all__ = ["FINE_SHARE", "Need", "entropy_need", "handed_down", "mark", "refine", "refine_block"]

FINE_SHARE = 2 / 3
"""Of the finer of two predictions where they are fused; the rest is the coarser one's (adaptive-trial.md)."""

Need = Callable[[Node, Tensor, Sequence[Node]], Sequence[float]]
"""How much each of some children of a node asks to be looked at closer, from the scores of the node's own patch."""


def refine(
    tree: Tree,
    roots: Iterable[tuple[Node, Tensor]],
    wanted: Need,
    threshold: float,
    forward: Callable[[Sequence[Node]], Iterable[Tensor]],
    keep: Callable[[Node, Tensor], None],
    *,
    matters: Callable[[Node], bool],
) -> Iterator[Node]:
    """Refine `roots`, level by level; yields every node whose patch was forwarded, parents first.

    Children are decided one by one: those whose need is beyond `threshold` go through `forward`, which gives the scores
    of nodes in their order, and their scores are fused with their parent's. `keep` gets what is left in the end: nodes
    with the scores over their windows, in a fixed order. Where only some children were run, the others keep their
    parent's scores as if they were their own, so that windows of one size meet. Children for which `matters` is false
    are neither run nor kept.
    """
    current = [(node, own, own) for node, own in roots]
    while current:
        asked: list[tuple[Node, Tensor]] = []
        for node, own, fused in current:
            yield node
            children = [child for child in tree.children(node) if matters(child)] if node.level else []
            needs = wanted(node, own, children) if children else []
            chosen = [need > threshold for need in needs]
            if not any(chosen):
                keep(node, fused)
                continue
            for child, run in zip(children, chosen, strict=True):
                part = handed_down(tree, node, child, fused)
                if run:
                    asked.append((child, part))
                else:
                    keep(child, part)
        found = forward([node for node, _ in asked]) if asked else ()
        current = [
            (node, own, torch.lerp(part, own, FINE_SHARE)) for (node, part), own in zip(asked, found, strict=True)
        ]


@torch.inference_mode()
def refine_block(
    predictor: Predictor,
    tree: Tree,
    threshold: float,
    roots: Iterable[tuple[Node, NDArray[np.float16]]],
    read: Callable[[Sequence[Node]], Iterable[PatchBatch]],
    sums: Accumulator,
    corner: Region,
    *,
    matters: Callable[[Node], bool],
) -> list[Node]:
    """Refine the roots of a block, of scores (K, P, P), by their entropy; returns what was forwarded, parents first.

    `read` gives the patches of nodes, in their order; `sums` are those of the block, whose first pixel is `corner`'s.
    """

    def forward(nodes: Sequence[Node]) -> Iterator[Tensor]:
        for batch in read(nodes):
            yield from predictor.scores(batch)

    def keep(node: Node, scores_KPP: Tensor) -> None:
        window = tree.window(node)
        sums.add_enlarged(scores_KPP, window.x - corner.x, window.y - corner.y, tree.scales[node.level])

    found = [(node, torch.from_numpy(scores).to(predictor.device).float()) for node, scores in roots]
    return list(refine(tree, found, entropy_need(tree), threshold, forward, keep, matters=matters))


def handed_down(tree: Tree, parent: Node, child: Node, scores_KPP: Tensor) -> Tensor:
    """(K, P, P): the parent's scores over the child's window, at the child's resolution."""
    outer, inner = tree.window(parent), tree.window(child)
    coarse, fine = tree.scales[parent.level], tree.scales[child.level]
    x, y = (inner.x - outer.x) / fine, (inner.y - outer.y) / fine
    rows = interpolated(scores_KPP, 1, y, y + tree.patch, fine / coarse)
    return interpolated(rows, 2, x, x + tree.patch, fine / coarse)


def entropy_need(tree: Tree) -> Need:
    """Mean entropy (nats) of the scores over each child's square inside the image, times the parent's scale."""

    def need(node: Node, own_KPP: Tensor, children: Sequence[Node]) -> list[float]:
        entropy_PP = torch.special.entr(own_KPP).sum(0)
        scale = tree.scales[node.level]
        means = [entropy_PP[_square(tree, node, child)].mean() for child in children]
        return [scale * mean for mean in torch.stack(means).tolist()]

    return need


def mark(tree: Tree, leaf: NDArray[np.int8], node: Node) -> None:
    """Note in `leaf` (cells) that the node was forwarded; to be called parents first."""
    leaf[tree.cells_of(node)] = node.level


def _square(tree: Tree, parent: Node, child: Node) -> tuple[slice, slice]:
    """The pixels of the parent's patch over the child's square inside the image; one a side at least."""
    scale, side = tree.scales[parent.level], tree.side(child.level)
    window = tree.window(parent)
    spans = []
    for place, start, length in (
        (child.row, window.y, tree.size.height),
        (child.column, window.x, tree.size.width),
    ):
        first = (place * side - start) // scale
        last = -(-(min((place + 1) * side, length) - start) // scale)
        spans.append(slice(first, max(last, first + 1)))
    return spans[0], spans[1]

"""Refinement of a tree from its roots down: where the coarse prediction asks for it, and what becomes of it there.

Letters: K classes, P patch side. Scores are probabilities (K, P, P) float32 of one patch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.chooser import Candidate, Chooser
from model.enlarging import enlarged
from model.tree import Node, Tree
from raster.geometry import Region

__all__ = [
    "FINE_SHARE",
    "Wanted",
    "change",
    "entropy_wanted",
    "fused_down",
    "handed_down",
    "kept_from",
    "mark",
    "refine",
    "refined",
]

FINE_SHARE = 2 / 3
"""Of the finer of two predictions where they are fused; the rest is the coarser one's (adaptive-trial.md)."""

Family = tuple[Node, Tensor, Sequence[Node]]
"""A node, the scores of its own patch, and the children that may be looked at closer."""
Keep = Callable[[Node, Tensor, int], None]
"""Takes a node, scores over its window, and the level whose pixels these are: the node's, or one above it."""
Wanted = Callable[[Sequence[Family]], list[list[Candidate]]]
"""How much the children of each family ask to be looked at closer; of all families at once, since what comes from a
device has to be waited for."""


@dataclass(frozen=True, eq=False)
class _Run:
    """A node that was forwarded, the number of its root, its own scores, and those fused with what was above it."""

    root: int
    node: Node
    own: Tensor
    fused: Tensor


def refine(
    tree: Tree,
    roots: Iterable[tuple[Node, Tensor]],
    wanted: Wanted,
    threshold: float,
    forward: Callable[[Sequence[Node]], Iterable[Tensor]],
    keep: Keep,
    *,
    matters: Callable[[Node], bool],
) -> Iterator[Node]:
    """Refine `roots`, level by level; yields every node whose patch was forwarded, parents first.

    Children are decided one by one: those that a root's `Chooser` takes go through `forward`, which gives the scores of
    nodes in their order, and their scores are fused with their parent's. No root's decisions depend on another root.
    `keep` gets what is left in the end: nodes with the scores over their windows, in a fixed order. Where only some
    children were run, the others keep their parent's scores over windows of their own, so that windows of one size
    meet. Children for which `matters` is false are neither run nor kept.
    """
    current = [_Run(index, node, own, own) for index, (node, own) in enumerate(roots)]
    while current:
        yield from (run.node for run in current)
        asked = [(run.node, run.own, _children(tree, run.node, matters)) for run in current]
        families = list(zip(current, wanted(asked), strict=True))
        found = _looked_at(tree, families, threshold, forward)
        current = []
        for run, candidates in families:
            if not any(one.node in found for one in candidates):
                keep(run.node, run.fused, run.node.level)
                continue
            for one in candidates:
                if one.node in found:
                    current.append(found[one.node])
                else:
                    keep(one.node, *kept_from(tree, run.node, one.node, run.fused))


def _children(tree: Tree, node: Node, matters: Callable[[Node], bool]) -> list[Node]:
    return [child for child in tree.children(node) if matters(child)] if node.level else []


def _looked_at(
    tree: Tree,
    families: Sequence[tuple[_Run, list[Candidate]]],
    threshold: float,
    forward: Callable[[Sequence[Node]], Iterable[Tensor]],
) -> dict[Node, _Run]:
    """The children that were run, round by round; the rounds of all roots go through `forward` together."""
    under: dict[int, list[tuple[_Run, Candidate]]] = {}
    for run, candidates in families:
        under.setdefault(run.root, []).extend((run, one) for one in candidates)
    choosers = {root: Chooser([one for _, one in pairs], threshold) for root, pairs in under.items()}
    found: dict[Node, _Run] = {}
    while asked := [(root, index) for root, chooser in choosers.items() for index in chooser.next()]:
        scores = forward([under[root][index][1].node for root, index in asked])
        changes: list[tuple[int, int, Tensor]] = []
        for (root, index), own in zip(asked, scores, strict=True):
            parent, one = under[root][index]
            part, fused = fused_down(tree, parent.node, one.node, parent.fused, own)
            # Only what may be looked at closer needs its own scores any longer: most nodes are of the finest level.
            found[one.node] = _Run(root, one.node, own if one.node.level else fused, fused)
            if one.look is not None:
                changes.append((root, index, change(tree, one.node, part, fused)))
        # One wait for the device a round.
        values = torch.stack([value for *_, value in changes]).tolist() if changes else []
        for (root, index, _), value in zip(changes, values, strict=True):
            choosers[root].observe(index, value)
    return found


@torch.inference_mode()
def refined(
    tree: Tree,
    threshold: float,
    roots: Iterable[tuple[Node, Tensor]],
    forward: Callable[[Sequence[Node]], Iterable[Tensor]],
    keep: Keep,
    *,
    matters: Callable[[Node], bool],
) -> list[Node]:
    """`refine` by entropy and what is learnt from it, to its end: all nodes that were forwarded, parents first."""
    return list(refine(tree, roots, entropy_wanted(tree), threshold, forward, keep, matters=matters))


def handed_down(tree: Tree, parent: Node, child: Node, scores_KPP: Tensor) -> Tensor:
    """(K, P, P): the parent's scores over the child's window, at the child's resolution."""
    outer, inner = tree.window(parent), tree.window(child)
    coarse, fine = tree.scales[parent.level], tree.scales[child.level]
    x, y = (inner.x - outer.x) // fine, (inner.y - outer.y) // fine
    return enlarged(scores_KPP, coarse // fine, range(y, y + tree.patch), range(x, x + tree.patch))


def kept_from(tree: Tree, parent: Node, child: Node, scores_KPP: Tensor) -> tuple[Tensor, int]:
    """What a child that is not run keeps of its parent: the scores over its window, and the level whose pixels they
    are: the parent's, unless the child's window or its overlap begins or ends between two of them."""
    outer, inner = tree.window(parent), tree.window(child)
    coarse, fine = tree.scales[parent.level], tree.scales[child.level]
    x, y, side = inner.x - outer.x, inner.y - outer.y, inner.width
    if any(length % coarse for length in (x, y, side, tree.overlap_px * fine)):
        return handed_down(tree, parent, child, scores_KPP), child.level
    part = Region(x // coarse, y // coarse, side // coarse, side // coarse)
    return scores_KPP[(slice(None), *part.slices())], parent.level


def fused_down(tree: Tree, parent: Node, child: Node, above_KPP: Tensor, own_KPP: Tensor) -> tuple[Tensor, Tensor]:
    """The parent's fused scores over the child's window, and these fused with the child's own."""
    part = handed_down(tree, parent, child, above_KPP)
    return part, torch.lerp(part, own_KPP, FINE_SHARE)


def change(tree: Tree, node: Node, before_KPP: Tensor, after_KPP: Tensor) -> Tensor:
    """(), mean over the node's square inside the image of the absolute differences, summed over classes."""
    square = _square(tree, node, node)
    return (after_KPP[(slice(None), *square)] - before_KPP[(slice(None), *square)]).abs_().sum(0).mean()


def entropy_wanted(tree: Tree) -> Wanted:
    """Mean entropy (nats) of the scores over each child's square inside the image, times the parent's scale."""

    def means(node: Node, own_KPP: Tensor, children: Sequence[Node]) -> list[Tensor]:
        if not children:
            return []
        maps = torch.cat([_entropy(own_KPP)[None], own_KPP])
        return [maps[(slice(None), *_square(tree, node, child))].mean((1, 2)) for child in children]

    def wanted(families: Sequence[Family]) -> list[list[Candidate]]:
        found = [mean for family in families for mean in means(*family)]
        values = iter(torch.stack(found).cpu().numpy() if found else ())
        return [
            [
                Candidate(child, tree.scales[node.level] * float(value[0]), float(value[0]), value[1:])
                for child, value in zip(children, values, strict=False)
            ]
            for node, _, children in families
        ]

    return wanted


def _entropy(scores_KPP: Tensor) -> Tensor:
    """(P, P), nats; in a quarter of the time of `torch.special.entr`, which takes one logarithm after the other."""
    logarithms = scores_KPP.clamp(min=torch.finfo(scores_KPP.dtype).tiny).log_()
    return logarithms.mul_(scores_KPP).sum(0).neg_()


def mark(tree: Tree, leaf: NDArray[np.int8], node: Node) -> None:
    """Note in `leaf` (cells) that the node was forwarded; to be called parents first."""
    leaf[tree.cells_of(node)] = node.level


def _square(tree: Tree, parent: Node, child: Node) -> tuple[slice, slice]:
    """The pixels of the parent's patch over a child's square (or its own) inside the image; one a side at least."""
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

"""Every node of an image's tree, forwarded once and kept on disk, so that any cover can be put together from it.

Letters: K classes, P patch side, H W pixels.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.schema import BundleCard
from model.accumulator import Accumulator, BlockSums
from model.chooser import Candidate
from model.datasets.labelled import LabelledImage
from model.evaluation.predict import Strip
from model.evaluation.wants import Wants
from model.lanes import Lanes
from model.predictor import PatchBatch, Predictor
from model.refine import Family, change, entropy_wanted, fused_down, refine
from model.shots import Shot, batch_of
from model.sums import OpenSums, ScaleSums
from model.tree import Node, Tree, make_tree
from raster.geometry import Region, Size

__all__ = ["Cover", "Nodes", "forward_nodes"]

_BATCH = 8

_Kept = tuple[Node, Tensor, int]
"""As `model.refine.Keep` takes it."""


@dataclass(frozen=True)
class Nodes:
    """All nodes of one image; `scores[level]` (rows, columns, K, P, P) float16 lies in a file."""

    tree: Tree
    scores: list[NDArray[np.float16]]
    seconds: float
    """Of reading and forwarding one patch."""

    def of(self, node: Node) -> Tensor:
        """(K, P, P) float32."""
        return torch.from_numpy(self.scores[node.level][node.row, node.column].astype(np.float32))

    def all(self, level: int) -> Iterator[Node]:
        rows, columns = self.tree.grid(level)
        yield from (Node(level, row, column) for row in range(rows) for column in range(columns))

    def wants(self) -> Wants:
        """What refined coverage sees of every child once it looks, and what it would learn from it."""
        tree, K = self.tree, self.scores[0].shape[2]
        needs = [np.zeros(tree.grid(level), np.float32) for level in range(tree.top)]
        changes = [np.zeros(tree.grid(level), np.float32) for level in range(tree.top)]
        looks = [np.zeros((*tree.grid(level), K), np.float32) for level in range(tree.top)]
        wanted = entropy_wanted(tree)
        current: list[tuple[Node, Tensor | None]] = [(root, None) for root in self.all(tree.top)]
        while current:
            node, fused = current.pop()
            own = self.of(node)
            above = own if fused is None else fused
            for one in wanted([(node, own, list(tree.children(node)))])[0]:
                assert one.look is not None, "entropy is learnt from"
                child = one.node
                part, finer = fused_down(tree, node, child, above, self.of(child))
                at = child.row, child.column
                needs[child.level][at], looks[child.level][at] = one.need, one.look
                changes[child.level][at] = float(change(tree, child, part, finer))
                if child.level:
                    current.append((child, finer))
        return Wants(needs, looks, changes)


class Cover:
    """One way to cover the image: its strips, and what it costs. Changes while strips are taken."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.forwards = 0
        self.seconds = 0.0

    def leaves(self, leaf: NDArray[np.int8]) -> Iterator[Strip]:
        """Planned coverage: `leaf` (cells) is the level of the node that owns each cell."""
        tree, everywhere = self._nodes.tree, np.ones(leaf.shape, bool)

        def kept(root: Node) -> Iterator[_Kept]:
            for node in tree.leaves_under(root, leaf, everywhere):
                self.forwards += 1
                yield node, self._nodes.of(node), node.level

        return self._strips(kept)

    def refined(self, wants: Wants, threshold: float) -> Iterator[Strip]:
        """Refined coverage, where `wants` says what a node asks to be looked at."""
        tree = self._nodes.tree

        def wanted(families: Sequence[Family]) -> list[list[Candidate]]:
            return [[wants.candidate(tree, child) for child in children] for _, _, children in families]

        def kept(root: Node) -> Iterator[_Kept]:
            found: list[_Kept] = []
            walk = refine(
                tree,
                [(root, self._nodes.of(root))],
                wanted,
                threshold,
                lambda nodes: map(self._nodes.of, nodes),
                lambda *one: found.append(one),
                matters=lambda node: True,
            )
            self.forwards += sum(1 for _ in walk)
            yield from found

        return self._strips(kept)

    def _strips(self, kept: Callable[[Node], Iterator[_Kept]]) -> Iterator[Strip]:
        """Stitched from top to bottom, one row of roots at a time, by what inference stitches with."""
        tree, started, coarsest = self._nodes.tree, time.perf_counter(), self._nodes.tree.scales[-1]
        carried: list[ScaleSums[NDArray[np.float32]]] = []
        done = 0
        for row in range(tree.roots.rows):
            last = row + 1 == tree.roots.rows
            # What lies between the last pixels of this row and the first of the next is read from both.
            end = tree.size.height if last else max(done, tree.roots.start(row + 1) - coarsest)
            found = self._row(row, max(0, done - coarsest), carried, kept)
            if end > done:
                total = OpenSums(Region(0, done, tree.size.width, end - done), tuple(found)).working().numpy()
                self.seconds += time.perf_counter() - started
                yield Strip(done, total[:-1] / total[-1:])
                started = time.perf_counter()
            carried = [_from_row(sums, max(0, end - coarsest)) for sums in found]
            done = end
        self.seconds += self.forwards * self._nodes.seconds

    def _row(
        self,
        row: int,
        top: int,
        carried: Sequence[ScaleSums[NDArray[np.float32]]],
        kept: Callable[[Node], Iterator[_Kept]],
    ) -> list[ScaleSums[Tensor]]:
        """The sums of the image's working rows from `top` down to where the windows of a row of roots end: `carried`,
        which begin there, and what is `kept` of these roots."""
        tree, classes = self._nodes.tree, self._nodes.scores[0].shape[2]
        bottom = min(tree.roots.start(row) + tree.roots.patch, tree.size.height)

        def opened(scale: int) -> Accumulator:
            size = Size(-(-tree.size.width // scale), -(-bottom // scale) - top // scale)
            return Accumulator(classes, size, tree.patch, tree.overlap_px, torch.device("cpu"))

        sums = BlockSums(opened)
        for part in carried:
            height, width = part.values.shape[1:]
            sums.at(part.scale).there(Region(0, 0, width, height)).add_(torch.from_numpy(part.values))
        for column in range(tree.roots.columns):
            for node, scores, level in kept(Node(tree.top, row, column)):
                window, scale = tree.window(node), tree.scales[level]
                sums.at(scale).add_patch(scores, window.x // scale, (window.y - top) // scale)
        return [ScaleSums(own.whole, scale, 0, top // scale) for scale, own in sums.by_scale.items()]


def _from_row(sums: ScaleSums[Tensor], top: int) -> ScaleSums[NDArray[np.float32]]:
    """The sums from a working row on."""
    first = top // sums.scale
    return ScaleSums(sums.values[:, first - sums.y :].numpy().copy(), sums.scale, 0, first)


def forward_nodes(
    predictor: Predictor, image: LabelledImage, overlap: float, directory: Path, report: Callable[[float], None]
) -> Nodes:
    """Forward what `directory` lacks; OptionInvalid for a bank that makes no tree."""
    card = predictor.card
    tree = make_tree(image.size, card.patch_size, tuple(card.fovs), overlap)
    directory.mkdir(parents=True, exist_ok=True)
    total = sum(int(np.prod(tree.grid(level))) for level in range(len(tree.scales)))
    scores: list[NDArray[np.float16]] = []
    seconds, done = 0.0, 0
    for level in range(tree.top, -1, -1):
        path = directory / f"level-{level}.npy"
        clock = directory / f"level-{level}.seconds"
        if not clock.exists():
            started = time.perf_counter()
            _forward_level(predictor, image, tree, level, path, lambda n, done=done: report((done + n) / total))  # type: ignore[misc]
            clock.write_text(str(time.perf_counter() - started))
        seconds += float(clock.read_text())
        done += int(np.prod(tree.grid(level)))
        scores.insert(0, np.load(path, mmap_mode="r"))
    return Nodes(tree, scores, seconds / total)


def _forward_level(
    predictor: Predictor, image: LabelledImage, tree: Tree, level: int, path: Path, report: Callable[[int], None]
) -> None:
    card, (rows, columns), P = predictor.card, tree.grid(level), tree.patch
    out = np.lib.format.open_memmap(path, "w+", np.float16, (rows, columns, len(card.classes), P, P))
    nodes = [Node(level, row, column) for row in range(rows) for column in range(columns)]
    batch, done = predictor.best_batch(_BATCH, 1), 0
    groups = (nodes[first : first + batch] for first in range(0, len(nodes), batch))
    reading = ((group, _batch(card, image, tree, group)) for group in groups)
    with Lanes(predictor.device) as lanes:
        for (group, _), scores in lanes.map(lambda read: predictor.scores(read[1]).half(), reading):
            for node, score in zip(group, scores.cpu().numpy(), strict=True):
                out[node.row, node.column] = score
            done += len(group)
            report(done)
    out.flush()


def _batch(card: BundleCard, image: LabelledImage, tree: Tree, group: list[Node]) -> PatchBatch:
    side = Size(card.patch_size, card.patch_size)
    shots = [Shot(node.row, node.column, (node.level,), (1.0,), 1.0) for node in group]
    patches = [[image.pixels(tree.window(node), side)] for node in group]
    return batch_of(shots, patches, [(0, 0)] * len(group), whole=True)

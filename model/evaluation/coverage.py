"""Adaptive coverage on labelled images: what forwards buy, beside every fixed scale, their mean, and controls.

Every node of every image is forwarded once; covers are then put together from them by the code that inference runs.
Letters: B blocks, K classes.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from foveate.coverage import nests
from foveate.errors import OptionInvalid
from model.bundle import load_bundle
from model.cells import thumbnail_distribution
from model.datasets.labelled import open_labelled
from model.datasets.layouts import find_pairs
from model.datasets.pair import Pair
from model.detail import planned_needs
from model.evaluation import signals
from model.evaluation.entries import Entry, Plan
from model.evaluation.nodes import Cover, Nodes, forward_nodes
from model.evaluation.predict import Strip, foveation_step, thumbnail_of
from model.evaluation.tally import Tally
from model.predictor import Predictor
from model.tree import plan_leaves
from raster.geometry import Region

__all__ = ["DETAILS", "Measured", "Point", "measure", "subjects"]

DETAILS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.65, 0.8, 1.0)
"""Where the curves are measured."""
CONTROL_DETAILS = (0.2, 0.35, 0.5)
_SEED = 304

Report = Callable[[float], None]


@dataclass(frozen=True)
class Point:
    """One cover of all images. `coverage`: "fixed", "mean" (of fixed ones), "planned" or "refined"."""

    coverage: str
    signal: str
    detail: float | None
    threshold: float | None
    share: float
    """Forwards over those of the finest scale, inner nodes counted."""
    seconds: float
    confusion: NDArray[np.int64]
    """(B, K, K) over the blocks of all images."""


@dataclass(frozen=True)
class Measured:
    """All points of one network; `blocks` of each image, whose confusions follow each other."""

    points: list[Point]
    blocks: list[int]


@dataclass(frozen=True)
class _Image:
    nodes: Nodes
    labels: NDArray[np.uint8]
    """Channels, or IGNORE."""
    block: int | None
    refined: dict[str, signals.Signal]
    planned: dict[str, signals.Signal]

    @property
    def finest(self) -> int:
        return int(np.prod(self.nodes.tree.grid(0)))


def subjects(plan: Plan) -> dict[str, list[Entry]]:
    """The networks that can be covered adaptively, by name: one entry a fold."""
    asked = plan.config.coverage
    found: dict[str, dict[str, Entry]] = {}
    for entry in plan.entries:
        name = entry.name.removesuffix(entry.role).strip() or entry.card.name
        wanted = name in asked if isinstance(asked, list) else asked
        if wanted and len(entry.parts) == 1 and entry.geometry == "lattice" and nests(entry.card):
            found.setdefault(name, {}).setdefault(entry.fold, entry)
    if not found:
        raise OptionInvalid(
            "evaluate.coverage: no such network here has explicit mapping and fields of view that nest",
            hint="Leave evaluate.coverage out, or evaluate such a bundle.",
        )
    return {name: list(by_fold.values()) for name, by_fold in found.items()}


def measure(entries: Sequence[Entry], plan: Plan, device: torch.device, directory: Path, report: Report) -> Measured:
    """All points of one network over the images of its folds.

    Nodes lie in `directory`, about 5 bytes a class and pixel; what lies there already is not forwarded again.
    """
    pairs = [(entry, pair) for entry in entries for pair in find_pairs(entry.data, plan.config.split)]
    images: list[_Image] = []
    predictors: dict[Path, Predictor] = {}
    for done, (entry, pair) in enumerate(pairs):
        bundle = entry.parts[0].bundle
        if bundle not in predictors:
            predictors = {bundle: Predictor(load_bundle(bundle), device)}
        key = f"{predictors[bundle].bundle.sha256} {pair} {plan.config.overlap}"
        folder = directory / hashlib.sha256(key.encode()).hexdigest()[:24]
        images.append(
            _prepared(
                entry, pair, predictors[bundle], plan, folder,
                lambda share, done=done: report(0.5 * (done + share) / len(pairs)),  # type: ignore[misc]
            )
        )  # fmt: skip
    images = _with_oracle(images)
    jobs = list(_jobs(images))
    points = []
    for done, job in enumerate(jobs):
        report(0.5 + 0.5 * done / len(jobs))
        points.append(_point(images, *job))
    return Measured(points, [_blocks(image) for image in images])


def _prepared(entry: Entry, pair: Pair, predictor: Predictor, plan: Plan, folder: Path, report: Report) -> _Image:
    card = predictor.card
    with contextlib.closing(open_labelled(pair, entry.data, card)) as image:
        nodes = forward_nodes(predictor, image, plan.config.overlap, folder, report)
        whole = Region.of(image.size)
        labels = image.labels(whole, whole.size)
        step = foveation_step(card)
        thumbnail = thumbnail_of(image, step)
        tree = nodes.tree
        planned = {"gradient": planned_needs(tree, thumbnail, None, step, None)}
        if predictor.foveation is not None:
            wants = thumbnail_distribution(predictor, thumbnail)
            planned["gradient x F_theta"] = planned_needs(tree, thumbnail, None, step, wants)
        planned["random"] = signals.noise(tree, _SEED)
        refined = {
            "entropy": nodes.entropy_needs(),
            "gradient": signals.child_gradient(tree, thumbnail, step),
            "random": signals.noise(tree, _SEED + 1),
        }
    block = plan.config.bootstrap.block if plan.config.bootstrap else None
    return _Image(nodes, labels, block, refined, planned)


def _with_oracle(images: list[_Image]) -> list[_Image]:
    """The images with the signal of somebody who knows the labels."""
    confusions = [signals.node_confusions(image.nodes, image.labels) for image in images]
    gain = signals.linear_gain(np.sum([found[0][..., 0, :, :].sum((0, 1)) for found in confusions], axis=0))
    for image, found in zip(images, confusions, strict=True):
        children = signals.gains(found, gain)
        image.refined["oracle"] = children
        image.planned["oracle"] = signals.parents(image.nodes.tree, children)
    return images


_Job = tuple[str, str, float | None]


def _jobs(images: list[_Image]) -> Iterator[_Job]:
    scales = images[0].nodes.tree.scales
    yield from (("fixed", f"{scale}", None) for scale in scales)
    yield from (("mean", f"{count}", None) for count in range(2, len(scales) + 1))
    for coverage, own in (("planned", images[0].planned), ("refined", images[0].refined)):
        for signal in own:
            measured = signal == "entropy" or (coverage == "planned" and signal.startswith("gradient"))
            yield from ((coverage, signal, detail) for detail in (DETAILS if measured else CONTROL_DETAILS))


def _point(images: list[_Image], coverage: str, signal: str, detail: float | None) -> Point:
    threshold = None
    if coverage == "refined":
        assert detail is not None
        threshold = threshold_for(images, signal, detail)
    forwards, seconds, confusions = 0, 0.0, []
    for image in images:
        covers = [Cover(image.nodes)]
        if coverage == "mean":
            covers = [Cover(image.nodes) for _ in range(int(signal))]
        strips = list(_strips(image, covers, coverage, signal, detail, threshold))
        confusions.append(_counted(image, strips))
        forwards += sum(cover.forwards for cover in covers)
        seconds += sum(cover.seconds for cover in covers)
    share = forwards / sum(image.finest for image in images)
    return Point(coverage, signal, detail, threshold, share, seconds, np.concatenate(confusions))


def _strips(
    image: _Image, covers: list[Cover], coverage: str, signal: str, detail: float | None, threshold: float | None
) -> Iterable[Strip]:
    tree = image.nodes.tree
    if coverage == "fixed":
        return covers[0].leaves(np.full(tree.grid(0), tree.scales.index(int(signal)), np.int8))
    if coverage == "mean":
        parts = [cover.leaves(np.full(tree.grid(0), level, np.int8)) for level, cover in enumerate(covers)]
        return (Strip(s[0].y, np.mean([strip.scores for strip in s], axis=0)) for s in zip(*parts, strict=True))
    if coverage == "refined":
        assert threshold is not None
        return covers[0].refined(image.refined[signal], threshold)
    assert detail is not None
    leaf, _ = plan_leaves(tree, image.planned[signal], np.ones(tree.grid(0), bool), detail)
    return covers[0].leaves(leaf)


def _counted(image: _Image, strips: Iterable[Strip]) -> NDArray[np.int64]:
    size = image.nodes.tree.size
    tally = Tally(size, image.nodes.scores[0].shape[2], block=image.block, windows=None, shrink=max(size.shape))
    for strip in strips:
        tally.add(strip, image.labels[strip.y : strip.y + strip.scores.shape[1]])
    return tally.confusion


def _blocks(image: _Image) -> int:
    size = image.nodes.tree.size
    side = image.block or max(size.shape)
    return -(-size.width // side) * -(-size.height // side)


def threshold_for(images: Sequence[_Image], signal: str, detail: float) -> float:
    """The least threshold at which refinement takes at most `detail` of the finest scale's forwards over all images;
    where the roots alone take more, the highest need."""
    finest = sum(image.finest for image in images)
    values = np.unique(np.concatenate([level.ravel() for image in images for level in image.refined[signal]]))
    tried = np.concatenate([[values[0] - 1], values])
    low, high = 0, len(tried) - 1
    while low < high:
        middle = (low + high) // 2
        spent = sum(_forwards(image, signal, float(tried[middle])) for image in images)
        low, high = (low, middle) if spent <= detail * finest else (middle + 1, high)
    return float(tried[low])


def _forwards(image: _Image, signal: str, threshold: float) -> int:
    """What refinement would take, without putting anything together."""
    tree = image.nodes.tree
    run = np.ones(tree.grid(tree.top), bool)
    total = int(run.sum())
    for level in range(tree.top - 1, -1, -1):
        rows, columns = tree.grid(level)
        ratio = tree.ratio(level + 1)
        above = run.repeat(ratio, 0).repeat(ratio, 1)[:rows, :columns]
        run = above & (image.refined[signal][level] > threshold)
        total += int(run.sum())
    return total

"""Adaptive coverage on labelled images: what forwards buy, beside every fixed scale, their mean, and controls.

Every node of every image is forwarded once; covers are then put together from them by the code that inference runs.
Letters: B blocks, K classes.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from foveate.coverage import nests
from foveate.errors import OptionInvalid
from model.bundle import load_bundle, load_networks
from model.cells import Distribution, thumbnail_step
from model.datasets.config import Data
from model.datasets.labelled import open_labelled
from model.datasets.layouts import find_pairs
from model.datasets.pair import Pair
from model.detail import planned_needs
from model.evaluation import signals
from model.evaluation.entries import Entry, Scoring
from model.evaluation.memory import arithmetic, dates_of
from model.evaluation.nodes import Cover, Nodes, forward_nodes
from model.evaluation.predict import Strip, thumbnail_of
from model.evaluation.tally import Tally
from model.evaluation.wants import Signal, Wants, spent
from model.predictor import Predictor
from model.tree import plan_leaves
from raster.geometry import Region

__all__ = [
    "DETAILS",
    "REFINED",
    "CoveragePoints",
    "CoveredImage",
    "Point",
    "measure",
    "measure_point",
    "nodes_key",
    "pooled",
    "prepare",
    "subjects",
]

DETAILS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.65, 0.8, 1.0)
"""Where the curves are measured."""
CONTROL_DETAILS = (0.2, 0.35, 0.5)
REFINED = "entropy, learning"
"""The signal of refined coverage; "entropy" alone, which learns nothing, is a control."""
_SEED = 304


@dataclass(frozen=True)
class Point:
    """One cover of all images. `coverage`: "fixed", "mean" (of fixed ones), "planned" or "refined"."""

    coverage: str
    signal: str
    detail: float | None
    threshold: float | None
    forwards: int
    """Inner nodes counted."""
    dense: int
    """Forwards of dense coverage, which sees the finest scale alone."""
    seconds: float
    confusion: NDArray[np.int64]
    """(B, K, K) over the blocks of all images."""

    @property
    def share(self) -> float:
        return self.forwards / self.dense


@dataclass(frozen=True)
class CoveragePoints:
    """All points of one network; `blocks` of each image, whose confusions follow each other."""

    points: list[Point]
    blocks: list[int]


@dataclass(frozen=True)
class CoveredImage:
    """An image of a fold with all that its covers are put together from."""

    fold: str
    nodes: Nodes
    labels: NDArray[np.uint8]
    """Channels, or IGNORE."""
    block: int | None
    refined: dict[str, Wants]
    planned: dict[str, Signal]

    @property
    def dense(self) -> int:
        """Forwards of dense coverage."""
        lattice = self.nodes.tree.dense
        return lattice.rows * lattice.columns

    @property
    def blocks(self) -> int:
        size = self.nodes.tree.size
        side = self.block or max(size.shape)
        return -(-size.width // side) * -(-size.height // side)


def subjects(scoring: Scoring) -> dict[str, list[Entry]]:
    """The networks that can be covered adaptively, by name: one entry a fold."""
    asked = scoring.config.coverage
    found: dict[str, dict[str, Entry]] = {}
    for entry in scoring.entries:
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


def measure(
    entries: Sequence[Entry], scoring: Scoring, device: torch.device, directory: Path, report: Callable[[float], None]
) -> CoveragePoints:
    """All points of one network over the images of its folds; `directory` as in `prepare`."""
    images = prepare(entries, scoring, device, directory, lambda share: report(0.5 * share))
    jobs = list(_jobs(images))
    points = []
    for done, job in enumerate(jobs):
        report(0.5 + 0.5 * done / len(jobs))
        points.append(measure_point(images, *job))
    return CoveragePoints(points, [image.blocks for image in images])


def prepare(
    entries: Sequence[Entry], scoring: Scoring, device: torch.device, directory: Path, report: Callable[[float], None]
) -> list[CoveredImage]:
    """The images of one network's folds.

    Nodes lie in `directory`, about 5 bytes a class and pixel; what lies there already is not forwarded again.
    """
    pairs = [(entry, pair) for entry in entries for pair in find_pairs(entry.data, scoring.config.split)]
    images: list[CoveredImage] = []
    predictors: dict[Path, Predictor] = {}
    for done, (entry, pair) in enumerate(pairs):
        bundle = entry.parts[0].bundle
        if bundle not in predictors:
            predictors = {bundle: Predictor(load_bundle(bundle), device)}
        folder = directory / nodes_key(predictors[bundle], pair, entry.data, scoring.config.overlap)
        images.append(
            _prepared(
                entry, pair, predictors[bundle], scoring, folder,
                lambda share, done=done: report((done + share) / len(pairs)),  # type: ignore[misc]
            )
        )  # fmt: skip
    return _with_oracle(images)


def nodes_key(predictor: Predictor, pair: Pair, data: Data, overlap: float) -> str:
    """Names all that an image's nodes depend on, arithmetic too, but not F_theta and what the card says of training."""
    card = predictor.card.model_dump_json(include={"network", "patch_size", "fovs", "mapping", "input"})
    described = f"{card} {pair} {data.model_dump_json()} {dates_of(pair)} {overlap} {arithmetic(predictor)}"
    weights = _digest_of_weights(predictor.bundle.directory, predictor.bundle.sha256)
    return hashlib.sha256(described.encode() + weights).hexdigest()[:24]


@functools.lru_cache(maxsize=1)
def _digest_of_weights(directory: Path, sha256: str) -> bytes:
    """Of the network of the bundle there, whose digest is `sha256`: once for all images.

    As the bundle has them: a predictor's network keeps its weights in forms that have no bytes.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(load_networks(load_bundle(directory))[0].state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.digest()


def _prepared(
    entry: Entry, pair: Pair, predictor: Predictor, scoring: Scoring, folder: Path, report: Callable[[float], None]
) -> CoveredImage:
    card = predictor.card
    with contextlib.closing(open_labelled(pair, entry.data, card)) as image:
        nodes = forward_nodes(predictor, image, scoring.config.overlap, folder, report)
        whole = Region.of(image.size)
        labels = image.labels(whole, whole.size)
        step = thumbnail_step(card)
        thumbnail = thumbnail_of(image, step)
        tree = nodes.tree
        planned = {"gradient": planned_needs(tree, thumbnail, None, step, None)}
        if predictor.foveation is not None:
            wants = Distribution(predictor, thumbnail)
            planned["gradient x F_theta"] = planned_needs(tree, thumbnail, None, step, wants)
        planned["random"] = signals.noise(tree, _SEED)
        asked = nodes.wants()
        refined = {
            REFINED: asked,
            "entropy": Wants(asked.needs),
            "gradient": Wants(signals.child_gradient(tree, thumbnail, step)),
            "random": Wants(signals.noise(tree, _SEED + 1)),
        }
    block = scoring.config.bootstrap.block if scoring.config.bootstrap else None
    return CoveredImage(entry.fold, nodes, labels, block, refined, planned)


def _with_oracle(images: list[CoveredImage]) -> list[CoveredImage]:
    """The images with the signal of somebody who knows the labels."""
    confusions = [signals.node_confusions(image.nodes, image.labels) for image in images]
    total_KK = np.sum([found[0][..., 0, :, :].sum((0, 1)) for found in confusions], axis=0)
    for image, found in zip(images, confusions, strict=True):
        children = signals.gains(found, total_KK)
        image.refined["oracle"] = Wants(children)
        image.planned["oracle"] = signals.parents(image.nodes.tree, children)
    return images


_Job = tuple[str, str, float | None]


def _jobs(images: list[CoveredImage]) -> Iterator[_Job]:
    scales = images[0].nodes.tree.scales
    yield from (("fixed", f"{scale}", None) for scale in scales)
    yield from (("mean", f"{count}", None) for count in range(2, len(scales) + 1))
    for coverage, own in (("planned", images[0].planned), ("refined", images[0].refined)):
        for signal in own:
            measured = signal == REFINED or (coverage == "planned" and signal.startswith("gradient"))
            yield from ((coverage, signal, detail) for detail in (DETAILS if measured else CONTROL_DETAILS))


def measure_point(
    images: Sequence[CoveredImage],
    coverage: str,
    signal: str,
    detail: float | None = None,
    threshold: float | None = None,
) -> Point:
    """One cover of the images; `threshold` None: refined coverage takes the one that spends `detail` on them."""
    if coverage == "refined" and threshold is None:
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
    dense = sum(image.dense for image in images)
    return Point(coverage, signal, detail, threshold, forwards, dense, seconds, np.concatenate(confusions))


def pooled(points: Sequence[Point]) -> Point:
    """The same cover of several folds' images, measured apart."""
    first = points[0]
    forwards, dense = sum(point.forwards for point in points), sum(point.dense for point in points)
    seconds, confusion = sum(point.seconds for point in points), np.concatenate([point.confusion for point in points])
    return Point(first.coverage, first.signal, first.detail, None, forwards, dense, seconds, confusion)


def _strips(
    image: CoveredImage, covers: list[Cover], coverage: str, signal: str, detail: float | None, threshold: float | None
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
    leaf, _ = plan_leaves(tree, image.planned[signal], np.ones(tree.grid(0), bool), detail, image.dense)
    return covers[0].leaves(leaf)


def _counted(image: CoveredImage, strips: Iterable[Strip]) -> NDArray[np.int64]:
    size = image.nodes.tree.size
    tally = Tally(size, image.nodes.scores[0].shape[2], block=image.block, windows=None, shrink=max(size.shape))
    for strip in strips:
        tally.add(strip, image.labels[strip.y : strip.y + strip.scores.shape[1]])
    return tally.confusion


def threshold_for(images: Sequence[CoveredImage], signal: str, detail: float) -> float:
    """The least threshold at which refinement takes at most `detail` of dense's forwards over all images; where the
    roots alone take more, the highest that is tried."""
    dense = sum(image.dense for image in images)
    needs = [level.ravel() for image in images for level in image.refined[signal].needs]
    values = np.unique(np.concatenate(needs))
    # What is learnt may lift a need beyond all of these.
    beyond = values[-1] * np.geomspace(1.05, 10, 48)
    tried = np.concatenate([[values[0] - 1], values, beyond[beyond > values[-1]]])
    low, high = 0, len(tried) - 1
    while low < high:
        middle = (low + high) // 2
        taken = sum(spent(image.nodes.tree, image.refined[signal], float(tried[middle])) for image in images)
        low, high = (low, middle) if taken <= detail * dense else (middle + 1, high)
    return float(tried[low])

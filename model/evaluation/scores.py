"""Scores of one entry on its images: everything that is counted in one pass over each image.

Letters: B blocks, K classes, D fields of view, Y X locations of F_theta's grid.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import BundleCard
from model.datasets.classes import IGNORE, channels_of
from model.datasets.config import Data
from model.datasets.labelled import LabelledImage, open_labelled
from model.datasets.layouts import labelling_of
from model.datasets.pair import Pair
from model.evaluation.objects import ObjectCounts, compare_objects, components
from model.evaluation.predict import (
    Effort,
    GeometryName,
    Member,
    Sampling,
    location_distribution,
    location_windows,
    predict_strips,
)
from model.evaluation.tally import Tally, WindowCounts, Windows
from model.metrics import ClassCounts, Reliability
from model.predictor import Predictor
from raster.geometry import Region, Size

__all__ = [
    "EntryScore",
    "ImageScore",
    "Wanted",
    "score_bundle",
    "score_image",
    "shrink_of",
]

_PICTURE_SIDE = 640
"""Longest side of the small masks that figures show, at most."""


@dataclass(frozen=True)
class Wanted:
    """What is counted beside the confusions."""

    block: int | None = None
    """Side of the bootstrap's blocks, in working pixels; null: an image is one."""
    windows: int | None = None
    """Step of the locations in whose smallest field of view's window is counted; null: none."""
    map: bool = False
    """F_theta's probabilities at every location."""
    objects: bool = False
    """Single objects, where the data number them."""


@dataclass(frozen=True)
class ImageScore:
    """One entry on one image."""

    name: str
    size: Size
    confusion: NDArray[np.int64]
    """(B, K, K): pixels by block, label and prediction."""
    reliability: Reliability
    forwards: int
    seconds: float
    patches_by_fov: list[int]
    mask: NDArray[np.uint8]
    """The prediction, every `shrink_of(size)`-th pixel."""
    windows: WindowCounts | None
    distribution: NDArray[np.float32] | None
    """(D, Y, X)."""
    objects: ObjectCounts | None

    @cached_property
    def counts(self) -> ClassCounts:
        return ClassCounts.of_confusion(self.confusion.sum(axis=0))


@dataclass(frozen=True)
class EntryScore:
    """One entry on all of its images."""

    images: list[ImageScore]

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(B, K, K) over the blocks of all images, image by image."""
        return np.concatenate([image.confusion for image in self.images])

    @cached_property
    def counts(self) -> ClassCounts:
        return ClassCounts.of_confusion(self.confusion.sum(axis=0))

    @cached_property
    def reliability(self) -> Reliability:
        return sum((image.reliability for image in self.images), Reliability.empty())

    @property
    def forwards(self) -> int:
        return sum(image.forwards for image in self.images)

    @property
    def seconds(self) -> float:
        return sum(image.seconds for image in self.images)

    @property
    def patches_by_fov(self) -> list[int]:
        return [sum(seen) for seen in zip(*(image.patches_by_fov for image in self.images), strict=True)]

    @property
    def objects(self) -> ObjectCounts | None:
        """Summed over the images; None where they have none."""
        counted = [image.objects for image in self.images if image.objects is not None]
        return sum(counted[1:], counted[0]) if counted else None


def shrink_of(size: Size) -> int:
    """Every how many pixels the small masks of figures are sampled."""
    return max(1, math.ceil(max(size.width, size.height) / _PICTURE_SIDE))


def score_image(
    members: Sequence[Member], image: LabelledImage, sampling: Sampling, wanted: Wanted, object_class: int | None = None
) -> ImageScore:
    """Predict `image` once and count. `object_class` is the value of the class whose single objects the data number.

    OptionInvalid where a label is no class of the card, or a policy cannot be followed.
    """
    card = members[0].predictor.card
    tally = Tally(
        image.size,
        len(card.classes),
        block=wanted.block,
        windows=None if wanted.windows is None else _windows(card, image.size, sampling.geometry, wanted.windows),
        shrink=shrink_of(image.size),
    )
    numbers = image.objects() if wanted.objects and object_class is not None else None
    whole = None if numbers is None else np.zeros(image.size.shape, bool)
    effort = Effort()
    for strip in predict_strips(members, image, sampling, effort):
        rows = Region(0, strip.y, image.size.width, strip.scores.shape[1])
        labels = image.labels(rows, rows.size)
        tally.add(strip, labels)
        if whole is not None and numbers is not None:
            ignored = labels == IGNORE
            whole[rows.slices()] = (strip.scores.argmax(axis=0) == channels_of(card)[object_class]) & ~ignored
            numbers[rows.slices()][ignored] = 0
    return ImageScore(
        name=image.name,
        size=image.size,
        confusion=tally.confusion,
        reliability=tally.reliability,
        forwards=effort.forwards,
        seconds=effort.seconds,
        patches_by_fov=effort.patches_by_fov,
        mask=tally.mask,
        windows=tally.window_counts(),
        distribution=location_distribution(members[0].predictor, image, sampling.geometry) if wanted.map else None,
        objects=None if whole is None or numbers is None else compare_objects(components(whole), numbers),
    )


def score_bundle(
    predictor: Predictor, pairs: Sequence[Pair], data: Data, policies: Sequence[str], *, overlap: float = 0.25
) -> dict[str, Any]:
    """The scores of a bundle under each policy on the lattice, as plain JSON values for its card.

    Shares are rounded to four places; what is not defined (a class that never occurs) is null.
    """
    object_class = labelling_of(data).objects
    found: dict[str, list[ImageScore]] = {policy: [] for policy in policies}
    for pair in pairs:
        with contextlib.closing(open_labelled(pair, data, predictor.card)) as image:
            for policy in policies:
                scored = score_image(
                    [Member(predictor, policy)], image, Sampling(overlap=overlap), Wanted(objects=True), object_class
                )
                found[policy].append(scored)
    return {policy: _as_json(EntryScore(images), predictor.card) for policy, images in found.items()}


def _as_json(score: EntryScore, card: BundleCard) -> dict[str, Any]:
    names = [entry.name for entry in card.classes]
    counts, objects = score.counts, score.objects
    values: dict[str, Any] = {
        "miou": rounded(counts.mean_iou()),
        "iou": by_class(counts, counts.iou, names),
        "dice": by_class(counts, counts.dice, names),
        "accuracy": rounded(counts.accuracy),
        "ece": rounded(score.reliability.expected_error),
        "forwards": score.forwards,
        "seconds": round(score.seconds, 1),
        "patches_by_fov": score.patches_by_fov,
    }
    if objects is not None:
        values |= {"object_dice": rounded(objects.dice), "object_f1": rounded(objects.f1)}
    return values


def by_class(counts: ClassCounts, values: NDArray[np.float64], names: Sequence[str]) -> dict[str, float | None]:
    """The values of all classes by name; null for those that occur in neither prediction nor label."""
    return {
        name: None if k in counts.absent else rounded(value)
        for k, (name, value) in enumerate(zip(names, values.tolist(), strict=True))
    }


def rounded(value: float) -> float | None:
    """Four places; JSON has no NaN."""
    return round(float(value), 4) if math.isfinite(value) else None


def _windows(card: BundleCard, size: Size, geometry: GeometryName, step: int) -> Windows:
    rows, columns = location_windows(card, size, geometry, step)
    return Windows(rows, columns, 2 * len(card.classes))

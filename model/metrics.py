"""Measures of masks and of foveation maps, summed over whole data sets (paper, section 4 and supplement B).

Letters: H W pixels, K classes, D fields of view, Y X cells. All in numpy, float64 results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BINS",
    "ClassCounts",
    "Reliability",
    "class_iou",
    "confusion",
    "count_classes",
    "foveation_map",
    "foveation_mse",
    "gold_standard",
    "mean_iou_slope",
    "normalised_map",
]

BINS = 15
"""Of confidence, equally wide (Guo et al. 2017)."""
_TINY = 1e-10


@dataclass(frozen=True)
class ClassCounts:
    """Pixels per class, int64 (K,): of prediction and label alike, of either, of the label; add them up over images.

    `correct` and `judged` count pixels for the accuracy.
    """

    intersection: NDArray[np.int64]
    union: NDArray[np.int64]
    label: NDArray[np.int64]
    correct: int
    judged: int

    def __add__(self, other: Self) -> "ClassCounts":
        return ClassCounts(
            self.intersection + other.intersection,
            self.union + other.union,
            self.label + other.label,
            self.correct + other.correct,
            self.judged + other.judged,
        )

    @classmethod
    def of_confusion(cls, confusion_KK: NDArray[np.int64]) -> Self:
        """From pixels by label and prediction, ignored ones left out."""
        intersection, label = np.diagonal(confusion_KK), confusion_KK.sum(axis=1)
        union = label + confusion_KK.sum(axis=0) - intersection
        return cls(intersection.copy(), union, label, int(intersection.sum()), int(label.sum()))

    @property
    def iou(self) -> NDArray[np.float64]:
        return self.intersection / (self.union + _TINY)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of each class's labelled pixels that were found, in 0..1."""
        return self.intersection / (self.label + _TINY)

    @property
    def dice(self) -> NDArray[np.float64]:
        return 2 * self.intersection / (self.union + self.intersection + _TINY)

    @property
    def accuracy(self) -> float:
        return self.correct / (self.judged + _TINY)

    def mean_iou(self, absent: Literal["left out", "zero"] = "left out", over: Sequence[int] | None = None) -> float:
        """Mean over the classes, or over those of `over`; NaN where every class is left out.

        A class in neither prediction nor label is left out, or counts 0 as in the authors' code.
        """
        classes = np.arange(len(self.union)) if over is None else np.array(over, np.int64)
        kept = classes[self.union[classes] > 0] if absent == "left out" else classes
        return float(self.iou[kept].mean()) if kept.size else float("nan")

    @property
    def absent(self) -> list[int]:
        """Classes that occur neither in a prediction nor in a label."""
        return np.flatnonzero(self.union == 0).tolist()


def count_classes(
    predicted_HW: NDArray[np.integer],
    label_HW: NDArray[np.integer],
    classes: int,
    ignore: int | None = None,
    *,
    accuracy_over: Literal["valid", "labelled"] = "valid",
) -> ClassCounts:
    """Counts over the pixels whose label is neither negative nor `ignore`.

    `accuracy_over` "labelled" judges the accuracy over the ignored pixels too, as the authors' code does.
    """
    valid = label_HW >= 0
    labelled = int(valid.sum())
    if ignore is not None:
        valid &= label_HW != ignore
    predicted, label = predicted_HW[valid], label_HW[valid]
    intersection = _histogram(label[predicted == label], classes)
    label_counts = _histogram(label, classes)
    return ClassCounts(
        intersection=intersection,
        union=_histogram(predicted, classes) + label_counts - intersection,
        label=label_counts,
        correct=int(
            (predicted_HW == label_HW)[label_HW >= 0].sum() if accuracy_over == "labelled" else intersection.sum()
        ),
        judged=labelled if accuracy_over == "labelled" else int(valid.sum()),
    )


def confusion(
    predicted_HW: NDArray[np.integer], label_HW: NDArray[np.integer], classes: int, ignore: int
) -> NDArray[np.int64]:
    """(K, K): pixels by label, then prediction, over the pixels whose label is not `ignore`."""
    valid = label_HW != ignore
    pairs = label_HW[valid].astype(np.int64) * classes + predicted_HW[valid]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def class_iou(confusion_NKK: NDArray[np.integer]) -> NDArray[np.float64]:
    """(N, K): the IoU of every class in each of N confusions; NaN for a class in neither prediction nor label."""
    right = np.diagonal(confusion_NKK, axis1=1, axis2=2)
    union = confusion_NKK.sum(axis=1) + confusion_NKK.sum(axis=2) - right
    iou: NDArray[np.float64] = np.where(union > 0, right / np.maximum(union, 1), np.nan)
    return iou


def mean_iou_slope(confusion_KK: NDArray[np.integer]) -> NDArray[np.float64]:
    """(K, K): by how much the mean IoU rises, to first order, with one more pixel of that label and prediction.

    A class in neither prediction nor label counts as an IoU of 0 over one pixel.
    """
    hit = np.diagonal(confusion_KK).astype(np.float64)
    union = np.maximum(confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1) - hit, 1)
    wider = hit / union**2
    slope: NDArray[np.float64] = np.diag(1 / union + wider) - wider[:, None] - wider[None, :]
    return slope / len(hit)


@dataclass(frozen=True)
class Reliability:
    """Pixels by the probability of their predicted class, in BINS bins (k / BINS, (k + 1) / BINS]; add them up."""

    pixels: NDArray[np.int64]
    """(BINS,)."""
    confidence: NDArray[np.float64]
    """(BINS,): summed probabilities."""
    correct: NDArray[np.int64]
    """(BINS,)."""

    @classmethod
    def empty(cls) -> Self:
        return cls(np.zeros(BINS, np.int64), np.zeros(BINS), np.zeros(BINS, np.int64))

    @classmethod
    def of(cls, confidence_N: NDArray[np.floating], correct_N: NDArray[np.bool_]) -> Self:
        """The pixels of which each has the probability of its predicted class and whether that is right."""
        bins = np.clip(np.ceil(confidence_N * BINS).astype(np.int64) - 1, 0, BINS - 1)
        return cls(
            np.bincount(bins, minlength=BINS).astype(np.int64),
            np.asarray(np.bincount(bins, weights=confidence_N, minlength=BINS), np.float64),
            np.bincount(bins[correct_N], minlength=BINS).astype(np.int64),
        )

    def __add__(self, other: Self) -> "Reliability":
        return Reliability(self.pixels + other.pixels, self.confidence + other.confidence, self.correct + other.correct)

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean over pixels of |accuracy - confidence| of their bin; NaN without any."""
        total = self.pixels.sum()
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else float("nan")


def foveation_map(distribution_DYX: NDArray[np.floating], bank: Sequence[int]) -> NDArray[np.float64]:
    """Per cell the mean field of view, in pixels."""
    mean_YX: NDArray[np.float64] = np.tensordot(np.asarray(bank, np.float64), distribution_DYX, axes=1)
    return mean_YX


def normalised_map(map_YX: NDArray[np.floating], bank: Sequence[int]) -> NDArray[np.float64]:
    """0: the smallest field of view, so the highest resolution; 1: the largest (section 11). With one alone: 0."""
    return (np.asarray(map_YX, np.float64) - bank[0]) / max(bank[-1] - bank[0], 1)


def gold_standard(
    performance_DYX: NDArray[np.floating], bank: Sequence[int], rule: Literal["weighted", "argmax"] = "weighted"
) -> NDArray[np.float64]:
    """The field of view that would have been best per cell, in pixels, from the D one-hot models' performance there.

    "weighted" is the mean of the bank weighted with it (supplement B.4; all 0: the plain mean), "argmax" the best one.
    """
    sides = np.asarray(bank, np.float64)
    if rule == "argmax":
        best_YX: NDArray[np.float64] = sides[np.argmax(performance_DYX, axis=0)]
        return best_YX
    total_YX = performance_DYX.sum(axis=0, dtype=np.float64)
    weighted_YX = np.tensordot(sides, performance_DYX.astype(np.float64), axes=1)
    gold_YX: NDArray[np.float64] = np.where(
        total_YX > 0, weighted_YX / np.where(total_YX > 0, total_YX, 1), sides.mean()
    )
    return gold_YX


def foveation_mse(map_YX: NDArray[np.floating], gold_YX: NDArray[np.floating], bank: Sequence[int]) -> float:
    """Mean squared difference of the two maps (both in pixels) after normalisation, where neither is NaN."""
    return float(np.nanmean((normalised_map(map_YX, bank) - normalised_map(gold_YX, bank)) ** 2))


def _histogram(values: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    return np.bincount(values, minlength=classes)[:classes].astype(np.int64)

"""Percentile intervals by resampling blocks or images, the same draws for every model, so that differences are paired.

Letters: B units (blocks or images), K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.evaluation.config import Bootstrap
from model.metrics import class_iou

__all__ = ["Draws", "Interval", "draw", "interval", "mean_iou"]

Interval = tuple[float, float]


@dataclass(frozen=True)
class Draws:
    """`times` (draws, B): how often each unit was drawn."""

    times: NDArray[np.int64]

    def confusions(self, units_BKK: NDArray[np.int64]) -> NDArray[np.int64]:
        """(draws, K, K)."""
        flat = self.times @ units_BKK.reshape(len(units_BKK), -1)
        return flat.reshape(-1, *units_BKK.shape[1:])


def draw(blocks: Sequence[int], config: Bootstrap) -> Draws:
    """Draw with replacement among the blocks of each image, `blocks` of them, or among the images where blocks are not
    asked for. The seed alone decides, so models over the same images get the same draws."""
    random = np.random.default_rng(config.seed)
    if config.block is None:
        return Draws(random.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), size=config.draws))
    return Draws(
        np.concatenate(
            [random.multinomial(count, np.full(count, 1 / count), size=config.draws) for count in blocks], axis=1
        )
    )


def mean_iou(confusion_NKK: NDArray[np.int64], over: Sequence[int]) -> NDArray[np.float64]:
    """(N,): mean IoU over the classes of `over` that each confusion shows; NaN where it shows none."""
    iou = class_iou(confusion_NKK)[:, list(over)]
    shown = np.isfinite(iou).sum(axis=1)
    mean: NDArray[np.float64] = np.where(shown > 0, np.nansum(iou, axis=1) / np.maximum(shown, 1), np.nan)
    return mean


def interval(values: NDArray[np.float64], level: float) -> Interval:
    """The central share `level` of the drawn values; NaN values are left out."""
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)

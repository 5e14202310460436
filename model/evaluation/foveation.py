"""Foveation maps against the gold standard, with controls (paper, Table 3 and supplement B.4; method, section 11).

The gold standard asks, per location, which field of view the fixed networks did best with there. Their performance is
that of the finished prediction inside the location's window of the smallest field of view: neighbouring patches have
had their say, as they have in the scores. Letters: D fields of view, Y X locations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.evaluation.tally import WindowCounts
from model.metrics import foveation_mse, gold_standard, normalised_map

__all__ = ["GOLD_RULES", "GoldMaps", "Rule", "constant_maps", "distances", "gold_maps", "random_maps"]

Rule = tuple[Literal["weighted", "argmax"], Literal["mIoU", "pooled IoU"]]
GoldMaps = dict[Rule, NDArray[np.float64]]
"""(Y, X) in pixels by rule; NaN where nothing is labelled."""

GOLD_RULES: tuple[Rule, ...] = (
    ("weighted", "mIoU"),
    ("argmax", "mIoU"),
    ("weighted", "pooled IoU"),
    ("argmax", "pooled IoU"),
)
"""The first is the paper's Table 3; pooled IoU is what the authors' code computes per location."""


@dataclass(frozen=True)
class Distance:
    """Mean and standard deviation over images of a map's MSE to one gold standard."""

    mean: float
    std: float


def gold_maps(fixed: Sequence[WindowCounts], bank: Sequence[int]) -> GoldMaps:
    """Every gold standard of one image, from the counts of the D fixed networks in the order of the bank."""
    performances = {
        "mIoU": np.stack([counts.mean_iou() for counts in fixed]),
        "pooled IoU": np.stack([counts.pooled_iou() for counts in fixed]),
    }
    maps: GoldMaps = {}
    for rule in GOLD_RULES:
        performance_DYX = performances[rule[1]]
        # A network that predicts nothing new there has a union all the same, so all D are NaN together.
        unknown = np.isnan(performance_DYX).any(axis=0)
        gold = gold_standard(np.nan_to_num(performance_DYX), bank, rule[0])
        maps[rule] = np.where(unknown, np.nan, gold)
    return maps


def distances(
    maps: Sequence[NDArray[np.float64]], gold: Sequence[GoldMaps], bank: Sequence[int]
) -> dict[Rule, Distance]:
    """How far the maps (in pixels, one an image) lie from each gold standard; images without labels are left out."""
    found = {}
    for rule in GOLD_RULES:
        pairs = [(one, truth[rule]) for one, truth in zip(maps, gold, strict=True) if np.isfinite(truth[rule]).any()]
        errors = [foveation_mse(one, truth, bank) for one, truth in pairs]
        found[rule] = Distance(float(np.mean(errors)), float(np.std(errors))) if errors else Distance(np.nan, np.nan)
    return found


def constant_maps(gold: Sequence[GoldMaps], bank: Sequence[int]) -> Iterator[tuple[str, list[NDArray[np.float64]]]]:
    """Controls that look at no image: every field of view everywhere, and the best constant for the first gold rule.

    The best constant is the mean of the gold standard itself, so it knows the answer's mean; a map that is worth its
    name lies closer than it does.
    """
    for side in bank:
        yield f"constant {side} px", [np.full(one[GOLD_RULES[0]].shape, float(side)) for one in gold]
    # Every image weighs the same in the table, so it does here.
    means = [np.nanmean(one[GOLD_RULES[0]]) for one in gold if np.isfinite(one[GOLD_RULES[0]]).any()]
    best = float(np.mean(means)) if means else float(np.mean(bank))
    share = float(normalised_map(np.array(best), bank))
    yield f"best constant ({share:.2f})", [np.full(one[GOLD_RULES[0]].shape, best) for one in gold]


def random_maps(gold: Sequence[GoldMaps], bank: Sequence[int], seed: int) -> list[NDArray[np.float64]]:
    """A control: a field of view drawn uniformly at every location."""
    random = np.random.default_rng(seed)
    return [random.choice(np.asarray(bank, np.float64), one[GOLD_RULES[0]].shape) for one in gold]

"""Object Dice and object F1 of the GlaS challenge (Sirinukunwattana et al., Medical Image Analysis 35, 2017).

Objects of the prediction are the connected components of one class in the mask: pixels that touch along an edge or at a
corner (8-connectivity). Components of fewer than MINIMUM pixels are dropped; holes are not filled, for the annotators'
glands include their lumen, and so does a network that has learnt them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["MINIMUM", "ObjectCounts", "compare_objects", "components"]

MINIMUM = 100
"""Pixels of the working grid below which a component is no object."""
_MATCH = 0.5
"""Share of an annotated object that the prediction must cover to have found it."""


@dataclass(frozen=True)
class ObjectCounts:
    """One image, or a set of them that was added up.

    `found`: predicted objects that cover at least half of the annotated object they overlap most; `spurious`: the other
    predicted ones; `missed`: annotated ones that no predicted one has found. `areas` and `overlaps` are, for annotated
    and for predicted objects: their summed area, and the sum of area times Dice with the object of the other side that
    overlaps most.
    """

    found: int
    spurious: int
    missed: int
    areas: tuple[int, int]
    weighted_dice: tuple[float, float]

    def __add__(self, other: Self) -> "ObjectCounts":
        return ObjectCounts(
            self.found + other.found,
            self.spurious + other.spurious,
            self.missed + other.missed,
            (self.areas[0] + other.areas[0], self.areas[1] + other.areas[1]),
            (self.weighted_dice[0] + other.weighted_dice[0], self.weighted_dice[1] + other.weighted_dice[1]),
        )

    @property
    def f1(self) -> float:
        """NaN where there are no objects on either side."""
        twice = 2 * self.found
        either = twice + self.spurious + self.missed
        return twice / either if either else float("nan")

    @property
    def dice(self) -> float:
        """Half of the annotated objects' area-weighted mean Dice plus half of the predicted ones'; NaN without any."""
        if not any(self.areas):
            return float("nan")
        sides = zip(self.weighted_dice, self.areas, strict=True)
        return sum(dice / area if area else 0.0 for dice, area in sides) / 2


def components(mask_HW: NDArray[np.bool_], minimum: int = MINIMUM) -> NDArray[np.int32]:
    """(H, W): 1, 2, … for the 8-connected components of at least `minimum` pixels; 0 elsewhere."""
    labelled, count = ndimage.label(mask_HW, structure=np.ones((3, 3), bool), output=np.int32)
    areas = np.bincount(labelled.ravel(), minlength=count + 1)
    kept = areas >= minimum
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    renumbered: NDArray[np.int32] = numbers[labelled]
    return renumbered


def compare_objects(predicted_HW: NDArray[np.integer], annotated_HW: NDArray[np.integer]) -> ObjectCounts:
    """Objects are equal numbers above 0 in each of the two arrays."""
    _, predicted = np.unique(predicted_HW, return_inverse=True)
    _, annotated = np.unique(annotated_HW, return_inverse=True)
    # Number 0 exists on both sides, so that background is always row and column 0.
    p = predicted.ravel() + (0 if (predicted_HW == 0).any() else 1)
    a = annotated.ravel() + (0 if (annotated_HW == 0).any() else 1)
    shape = int(a.max()) + 1, int(p.max()) + 1
    shared = np.bincount(a * shape[1] + p, minlength=shape[0] * shape[1]).reshape(shape)
    areas_a, areas_p = shared.sum(axis=1)[1:], shared.sum(axis=0)[1:]
    overlap = shared[1:, 1:]
    covered = _matches(overlap, areas_a)
    found = len(covered)
    return ObjectCounts(
        found=found,
        spurious=len(areas_p) - found,
        missed=len(areas_a) - len(set(covered)),
        areas=(int(areas_a.sum()), int(areas_p.sum())),
        weighted_dice=(_weighted_dice(overlap, areas_a, areas_p), _weighted_dice(overlap.T, areas_p, areas_a)),
    )


def _matches(overlap: NDArray[np.int64], areas: NDArray[np.int64]) -> Sequence[int]:
    """For every predicted object that has found one: the annotated object, the one that it overlaps most."""
    if not overlap.size:
        return []
    best = overlap.argmax(axis=0)
    shared = overlap[best, np.arange(overlap.shape[1])]
    chosen: list[int] = best[(shared > 0) & (shared >= _MATCH * areas[best])].tolist()
    return chosen


def _weighted_dice(overlap: NDArray[np.int64], own: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    if not overlap.size:
        return 0.0
    best = overlap.argmax(axis=1)
    shared = overlap[np.arange(len(own)), best]
    return float((own * 2 * shared / (own + others[best])).sum())

"""Random changes of what training sees: turns, mirroring, other light and colours, empty glass over a part."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.datasets.classes import IGNORE
from model.datasets.config import Augmentation

__all__ = ["Change", "draw_change", "under_glass"]

Pixels = NDArray[Any]
Classes = NDArray[np.uint8]


@dataclass(frozen=True)
class Change:
    """One draw, to be applied alike to everything that is cut from one image.

    `turns` right angles, then `mirrored` left to right. Colours: v^`gamma`, then `contrast` about the mean, then
    `gains`, one for each band; for three bands `saturation` times the distance from grey, turned by `hue` about it.
    """

    turns: int = 0
    mirrored: bool = False
    gamma: float = 1.0
    contrast: float = 1.0
    gains: tuple[float, ...] = (1.0,)
    saturation: float = 1.0
    hue: float = 0.0

    def turned(self, values: NDArray[Any]) -> NDArray[Any]:
        """`values` (rows, columns, …), turned and mirrored."""
        values = np.rot90(values, self.turns)
        return values[:, ::-1] if self.mirrored else values

    def recoloured(self, pixels: Pixels, top: float = 255.0, mean: NDArray[np.float64] | None = None) -> Pixels:
        """(H, W, C) `pixels` from 0 to `top` in other colours, same dtype.

        `mean` (C,), from 0 to 1: what contrast is about; None: the mean of `pixels` after gamma.
        """
        if self._same_colours:
            return pixels
        values = (pixels.astype(np.float64) / top).clip(0, 1) ** self.gamma
        middle = values.mean(axis=(0, 1)) if mean is None else mean
        values = (middle + (values - middle) * self.contrast) * np.array(self.gains)
        if values.shape[2] == 3 and (self.saturation, self.hue) != (1.0, 0.0):
            values = values @ _about_grey(self.saturation, self.hue).T
        values = values.clip(0, 1) * top
        return np.asarray(np.rint(values) if np.issubdtype(pixels.dtype, np.integer) else values, pixels.dtype)

    @property
    def _same_colours(self) -> bool:
        return (self.gamma, self.contrast, set(self.gains), self.saturation, self.hue) == (1.0, 1.0, {1.0}, 1.0, 0.0)


def draw_change(limits: Augmentation, bands: int, random: np.random.Generator) -> Change:
    """One change within `limits`; takes the same number of draws whatever the limits are."""
    turns, mirrored = int(random.integers(4)), bool(random.integers(2))
    gamma, contrast, gain, saturation, hue = random.uniform(-1, 1, 5)
    per_band = random.uniform(-1, 1, bands)
    return Change(
        turns if limits.right_angles else 0,
        mirrored and limits.flip,
        2.0 ** (gamma * limits.gamma),
        1 + contrast * limits.contrast,
        tuple((1 + gain * limits.gain) * (1 + one * limits.gain / 2) for one in per_band),
        1 + saturation * limits.saturation,
        hue * limits.hue,
    )


def under_glass(
    pixels: Pixels, classes: Classes, value: int, random: np.random.Generator, top: float = 255.0
) -> tuple[Pixels, Classes]:
    """`pixels` (H, W, C) and `classes` (H, W) with a nearly white, slightly noisy half-plane of class `value`.

    The line may miss the patch; what is ignored stays as it is.
    """
    height, width = classes.shape
    angle, offset = random.uniform(0, 2 * np.pi), random.uniform(-0.6, 0.6) * max(height, width)
    rows, columns = np.mgrid[:height, :width]
    distance = np.cos(angle) * (columns - width / 2) + np.sin(angle) * (rows - height / 2)
    covered = (distance > offset) & (classes != IGNORE)
    white = random.uniform(222, 250) + random.uniform(-4, 4, pixels.shape[2]) + random.normal(0, 2, pixels.shape)
    glass = np.rint(white.clip(0, 255)) * (top / 255)
    return np.where(covered[..., None], glass.astype(pixels.dtype), pixels), np.where(covered, np.uint8(value), classes)


def _about_grey(saturation: float, hue: float) -> NDArray[np.float64]:
    """(3, 3): scales the distance from the axis red = green = blue, and turns by `hue` radians about it (Rodrigues)."""
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return np.asarray(grey + saturation * (math.cos(hue) * (np.eye(3) - grey) + math.sin(hue) * cross))

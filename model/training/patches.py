"""Random patches of any field of view with labels over all that they see: what staged training learns from.

A patch depends on the seed, the update and its slot alone. Letters: N patches, C bands, P patch side.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from model.datasets.augmentation import draw_change, under_glass
from model.datasets.classes import channels_of
from model.datasets.labelled import LabelledImage
from model.datasets.pair import Pair
from model.training.config import Staged, TrainConfig
from model.training.images import OpenImages
from raster.geometry import Region, Size

__all__ = ["PatchSample", "PatchSamples", "gather_patches"]


class PatchSample(NamedTuple):
    """One patch, or, gathered, N of them with one more axis in front."""

    pixels: Tensor
    """(P, P, C) in the bundle's dtype."""
    labels: Tensor
    """(P, P) uint8."""
    scale: Tensor
    """() float32: the field of view over the patch side."""


class PatchSamples(Dataset[PatchSample]):
    """The patches of staged training by (update, slot). An image is drawn by the root of what it has to learn."""

    def __init__(self, pairs: Sequence[Pair], labelled: Sequence[float], config: TrainConfig) -> None:
        assert isinstance(config.training, Staged)
        self._config, self._card, self._schedule = config, config.bundle, config.training.network
        self._images = OpenImages(pairs, config)
        roots = np.sqrt(labelled)
        self._odds = roots / roots.sum()
        self._shares = np.array(self._schedule.fov_shares) / sum(self._schedule.fov_shares)

    def __getitem__(self, key: tuple[int, int]) -> PatchSample:
        update, slot = key
        random = np.random.default_rng([self._config.seed, update, slot])
        image = self._images[int(random.choice(len(self._images), p=self._odds))]
        fov = int(random.choice(self._card.fovs, p=self._shares))
        change = self._config.augmentation
        zoom = change.zoom if random.random() < change.zoom_share else 0.0
        window = self._window(image, round(fov * 2.0 ** random.uniform(-zoom, zoom)), random)
        side, top = Size(self._card.patch_size, self._card.patch_size), self._card.input.value_scale
        drawn = draw_change(change, self._card.network.in_channels, random)
        pixels = drawn.recoloured(drawn.turned(image.pixels(window, side)), top)
        labels = drawn.turned(image.learnable(window, side))
        if change.glass is not None and random.random() < change.glass.share:
            glass = int(channels_of(self._card)[change.glass.value])
            pixels, labels = under_glass(pixels, labels, glass, random, top)
        scale = np.float32(fov / self._card.patch_size)
        return PatchSample(*(torch.from_numpy(np.array(part)) for part in (pixels, labels, scale)))

    def _window(self, image: LabelledImage, seen: int, random: np.random.Generator) -> Region:
        sides = np.array([image.size.width, image.size.height])
        centre = random.uniform(0, sides)
        if random.random() < self._schedule.class_centred:
            centre = _of_a_class(image, centre, random) + random.uniform(-seen / 4, seen / 4, 2)
        # Inference centres lie at least half a patch inside; half of the windows are moved inside as a whole.
        inset = seen / 2 if random.random() < 0.5 else self._card.patch_size / 2
        low, high = np.minimum(inset, sides / 2), np.maximum(sides - inset, sides / 2)
        x, y = np.floor(np.clip(centre, low, high) - seen / 2).astype(int)
        return Region(int(x), int(y), seen, seen)


def _of_a_class(
    image: LabelledImage, otherwise: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """(x, y) of a pixel of a class drawn uniformly from those of the image."""
    if not image.present:
        return otherwise
    place: NDArray[np.float64] = image.places(int(random.choice(image.present)), 1, random)[0]
    return place


def gather_patches(samples: Sequence[PatchSample]) -> PatchSample:
    """N patches as one sample, stacked."""
    return PatchSample(*(torch.stack(parts) for parts in zip(*samples, strict=True)))

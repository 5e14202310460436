"""Labelled images in memory, and random patches of them at any field of view.

Pixels are reduced by `raster.resample`, the code that inference reads with. Letters: N patches, C bands, P patch side.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.errors import BandsMismatch, ImageMissing, OptionInvalid
from foveate.schema import BundleCard
from model.training.config import Augmentation, Data, Glass, Holdout, NetworkSchedule, Scenes
from raster.geometry import Region, Size
from raster.image import ImageRef, open_image
from raster.labels import read_labels
from raster.resample import resample
from raster.source import FAR

__all__ = [
    "IGNORE",
    "Labelled",
    "PatchSampler",
    "class_shares",
    "labels_at",
    "load_images",
    "mean_colour",
    "normalised",
    "patch_at",
    "read_pixels",
    "recoloured",
    "thumbnail",
    "turned",
]

IGNORE = 255
"""The label that is neither learnt nor scored; also what lies outside an image."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Labelled:
    """An image, its labels and the part that the network must not learn from.

    `pixels` (H, W, C) uint8; `labels` (H, W) uint8 classes or IGNORE; `held` may be empty.
    """

    name: str
    pixels: Pixels
    labels: Pixels
    held: Region

    @property
    def size(self) -> Size:
        return Size(self.labels.shape[1], self.labels.shape[0])

    @property
    def learnable(self) -> Pixels:
        """The labels with `held` ignored."""
        labels = self.labels.copy()
        labels[self.held.slices()] = IGNORE
        return labels


def load_images(data: Data, scenes: list[Scenes], holdout: Holdout | None) -> list[Labelled]:
    """Every image of `scenes`, decoded and assembled, in the order of the recipe."""
    found = [item for scene in scenes for item in _pairs(data.folder, scene)]
    return [
        _labelled(name, images, labels, columns, data, holdout, index)
        for index, (name, images, labels, columns) in enumerate(found)
    ]


def _pairs(folder: Path, scene: Scenes) -> Iterator[tuple[str, list[Path], list[Path], int]]:
    images, labels = sorted(folder.glob(scene.images)), sorted(folder.glob(scene.labels))
    if not images:
        raise ImageMissing(f"no file matches {folder / scene.images}", hint="Set data.folder to where the data lie.")
    if len(images) != len(labels):
        raise OptionInvalid(
            f"{folder}: {len(images)} images match {scene.images}, {len(labels)} labels {scene.labels}",
            hint="Choose patterns that match one label image for each image.",
        )
    if scene.mosaic is None:
        yield from ((str(i.relative_to(folder)), [i], [label], 1) for i, label in zip(images, labels, strict=True))
        return
    columns, rows = scene.mosaic
    if columns * rows != len(images):
        raise OptionInvalid(
            f"{scene.images} matches {len(images)} files, a mosaic of {columns} x {rows} has {columns * rows} parts",
            hint="Mend the pattern or the mosaic's size.",
        )
    yield scene.images, images, labels, columns


def _labelled(
    name: str, images: list[Path], labels: list[Path], columns: int, data: Data, holdout: Holdout | None, index: int
) -> Labelled:
    pixels = _assembled([read_pixels(path) for path in images], columns)
    found = _assembled([read_labels(path) for path in labels], columns)
    if pixels.shape[:2] != found.shape[:2]:
        raise OptionInvalid(f"{name}: image and labels differ in size", hint="Choose patterns that pair them rightly.")
    mapping = np.full(256, 254, np.uint8)
    for entry in data.labels:
        mapping[entry.low : entry.high + 1] = IGNORE if entry.value is None else entry.value
    classes = mapping[found]
    if (classes == 254).any():
        value = int(found[classes == 254][0])
        raise OptionInvalid(f"{name}: label {value} is in no range of data.labels", hint="Add it, or map it to null.")
    if data.glass is not None:
        classes[_is_glass(pixels, data.glass) & (classes == data.glass.within)] = data.glass.value
    return Labelled(name, pixels, classes, _held(Size(found.shape[1], found.shape[0]), holdout, index))


def read_pixels(path: Path) -> Pixels:
    """(H, W, C) uint8: the whole image at level 0, read as inference reads it."""
    image = open_image(ImageRef(path))
    try:
        pixels = image.read(0, Region(0, 0, image.info.width, image.info.height)).values
    finally:
        image.close()
    if pixels.dtype != np.uint8:
        raise BandsMismatch(f"{path} holds {pixels.dtype} values", hint="Convert it to 8 bits a band for training.")
    return np.asarray(pixels, np.uint8)


def _assembled(parts: list[Pixels], columns: int) -> Pixels:
    rows = [np.concatenate(parts[k : k + columns], axis=1) for k in range(0, len(parts), columns)]
    return np.concatenate(rows, axis=0)


def _is_glass(pixels: Pixels, rule: Glass) -> NDArray[np.bool_]:
    smooth = pixels.astype(np.float32)
    for axis in (0, 1):
        smooth = _running_mean(smooth, rule.radius, axis)
    chroma = smooth.max(axis=2) - smooth.min(axis=2)
    return np.asarray((smooth.mean(axis=2) >= rule.brightness) & (chroma <= rule.chroma))


def _running_mean(values: NDArray[np.float32], radius: int, axis: int) -> NDArray[np.float32]:
    """The mean over 2 * radius + 1 neighbours along an axis; the edge is repeated outwards."""
    widths = [(0, 0)] * values.ndim
    widths[axis] = (radius + 1, radius)
    sums = np.cumsum(np.pad(values, widths, mode="edge"), axis=axis, dtype=np.float64)
    length, reach = values.shape[axis], 2 * radius + 1
    ends = np.take(sums, range(reach, reach + length), axis=axis)
    return ((ends - np.take(sums, range(length), axis=axis)) / reach).astype(np.float32)


def _held(size: Size, holdout: Holdout | None, index: int) -> Region:
    if holdout is None:
        return Region(0, 0, 0, 0)
    if holdout.kind == "image":
        return Region.of(size) if index % holdout.part == holdout.part - 1 else Region(0, 0, 0, 0)
    width, height = size.width // holdout.part, size.height // holdout.part
    right, low = (index % 4) in (1, 2), (index % 4) in (2, 3)
    return Region(size.width - width if right else 0, size.height - height if low else 0, width, height)


def class_shares(images: list[Labelled], classes: int) -> list[float]:
    """Share of each class among the pixels that the network learns from."""
    counts = sum(np.bincount(image.learnable.ravel(), minlength=256)[:classes] for image in images)
    return [float(n) for n in np.asarray(counts) / np.sum(counts)]


def mean_colour(card: BundleCard) -> Pixels:
    """(C,) what lies outside an image: zero after normalisation, to within rounding."""
    return np.rint(np.array(card.input.mean) * card.input.value_scale).astype(np.uint8)


def normalised(pixels: Pixels, card: BundleCard) -> Tensor:
    """(N, H, W, C) uint8 to (N, C, H, W) float32 as the network takes it (without the scale channel)."""
    values = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / card.input.value_scale
    shape = (1, -1, 1, 1)
    return (values - torch.tensor(card.input.mean).view(shape)) / torch.tensor(card.input.std).view(shape)


def cut(values: NDArray[np.uint8], region: Region, fill: NDArray[np.uint8] | int) -> NDArray[np.uint8]:
    """`region` of an image, with `fill` where it reaches outside."""
    out = np.empty((region.height, region.width, *values.shape[2:]), np.uint8)
    out[...] = fill
    inside = region.intersection(Region(0, 0, values.shape[1], values.shape[0]))
    if not inside.empty:
        out[inside.slices(region.x, region.y)] = values[inside.slices()]
    return out


def patch_at(pixels: Pixels, window: Region, side: int, fill: Pixels) -> Pixels:
    """(side, side, C): what a patch that sees `window` (a square) shows."""
    part = cut(pixels, window, fill)
    return _shrunk(part, Size(side, side))


def labels_at(labels: Pixels, window: Region, side: int) -> Pixels:
    """(side, side): the class that covers most of each patch pixel; IGNORE where more than half is not labelled.

    Ties go to the lower class. Where the window is no whole multiple of the patch: the class at each pixel's centre.
    """
    part = cut(labels, window, IGNORE)
    if window.width % side:
        index = ((np.arange(side) + 0.5) * window.width / side).astype(np.intp)
        return np.asarray(part[np.ix_(index, index)])
    step = window.width // side
    if step == 1:
        return part
    cells = part.reshape(side, step, side, step)
    present = [int(v) for v in np.unique(part) if v != IGNORE] or [0]
    counts = np.stack([(cells == value).sum(axis=(1, 3), dtype=np.int32) for value in present])
    majority = np.array(present, np.uint8)[counts.argmax(axis=0)]
    majority[counts.sum(axis=0) * 2 < step * step] = IGNORE
    return np.asarray(majority, np.uint8)


def thumbnail(pixels: Pixels, downsample: int, fill: Pixels) -> Pixels:
    """(h, w, C): the whole image, `downsample` pixels to one; the last row and column may hang over the border."""
    height, width = (-(-n // downsample) for n in pixels.shape[:2])
    whole = cut(pixels, Region(0, 0, width * downsample, height * downsample), fill)
    return _shrunk(whole, Size(width, height))


def _shrunk(pixels: Pixels, size: Size) -> Pixels:
    height, width = pixels.shape[:2]
    ratio = min(width / size.width, height / size.height)
    if ratio >= FAR:
        # The source goes by way of halved levels too; each rounds to whole grey levels.
        step = 2 ** math.floor(math.log2(ratio / 2))
        pixels = _shrunk(pixels, Size(width // step, height // step))
        height, width = pixels.shape[:2]
    # A copy: what Pillow gives may not be written to, which torch dislikes.
    return np.array(resample(pixels, Region(0, 0, width, height), (0, 0, width, height), size), np.uint8)


class PatchSampler:
    """Random training batches; the batch of a step depends on `seed` and the step alone, so a run can be resumed."""

    def __init__(
        self, images: list[Labelled], card: BundleCard, schedule: NetworkSchedule, augmentation: Augmentation, seed: int
    ) -> None:
        self.card, self.schedule, self.augmentation, self.seed = card, schedule, augmentation, seed
        self._images = images
        self._labels = [image.learnable for image in images]
        roots = np.sqrt([float((labels != IGNORE).sum()) for labels in self._labels])
        self._odds = roots / roots.sum()

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised patches (N, C, P, P) float32, labels (N, P, P) int64, and each patch's f / P (N,) float32."""
        random = np.random.default_rng([self.seed, step])
        drawn = [self._one(random) for _ in range(self.schedule.batch)]
        patches, labels, scales = zip(*drawn, strict=True)
        return (
            normalised(np.stack(patches), self.card),
            torch.from_numpy(np.stack(labels).astype(np.int64)),
            torch.tensor(scales, dtype=torch.float32),
        )

    def _one(self, random: np.random.Generator) -> tuple[Pixels, Pixels, float]:
        which = int(random.choice(len(self._images), p=self._odds))
        labels = self._labels[which]
        fov = int(random.choice(self.card.fovs, p=self.schedule.fov_shares))
        zoom = self.augmentation.zoom if random.random() < self.augmentation.zoom_share else 0.0
        seen = round(fov * 2.0 ** random.uniform(-zoom, zoom))
        window = self._window(labels, seen, random)
        side = self.card.patch_size
        patch = patch_at(self._images[which].pixels, window, side, mean_colour(self.card))
        truth = labels_at(labels, window, side)
        turns, mirrored = int(random.integers(4)), bool(random.integers(2))
        patch = recoloured(turned(patch, turns, mirrored), self.augmentation, random)
        truth = turned(truth, turns, mirrored)
        glass = self.augmentation.glass
        if glass is not None and random.random() < glass.share:
            patch, truth = under_glass(patch, truth, glass.value, random)
        return patch, truth, fov / side

    def _window(self, labels: Pixels, seen: int, random: np.random.Generator) -> Region:
        size = Size(labels.shape[1], labels.shape[0])
        centre = np.array([random.uniform(0, size.width), random.uniform(0, size.height)])
        if random.random() < self.schedule.class_centred and (found := _pixel_of_a_class(labels, random)) is not None:
            centre = found + random.uniform(-seen / 4, seen / 4, 2)
        # Inference centres lie at least half a patch inside; half of the windows are moved inside as a whole.
        inset = seen / 2 if random.random() < 0.5 else self.card.patch_size / 2
        sides = np.array([size.width, size.height])
        low, high = np.minimum(inset, sides / 2), np.maximum(sides - inset, sides / 2)
        x, y = np.floor(np.clip(centre, low, high) - seen / 2).astype(int)
        return Region(int(x), int(y), seen, seen)


def _pixel_of_a_class(labels: Pixels, random: np.random.Generator) -> NDArray[np.float64] | None:
    """(x, y) of a pixel of a class drawn uniformly from those met in a sample of the image; None: none was met."""
    rows, columns = random.integers(labels.shape[0], size=2000), random.integers(labels.shape[1], size=2000)
    values = labels[rows, columns]
    present = [v for v in np.unique(values) if v != IGNORE]
    if not present:
        return None
    k = int(random.choice(np.flatnonzero(values == random.choice(present))))
    return np.array([columns[k] + 0.5, rows[k] + 0.5])


def turned(values: NDArray[np.uint8], turns: int, mirrored: bool) -> NDArray[np.uint8]:
    """`values` (rows, columns, …) turned by `turns` right angles, then mirrored left to right."""
    values = np.rot90(values, turns)
    return values[:, ::-1] if mirrored else values


def recoloured(patch: Pixels, change: Augmentation, random: np.random.Generator) -> Pixels:
    """`patch` under other light: random gain, contrast and gamma."""
    values = patch.astype(np.float64) / 255
    values = values ** (2 ** random.uniform(-change.gamma, change.gamma))
    mean = values.mean(axis=(0, 1), keepdims=True)
    values = mean + (values - mean) * (1 + random.uniform(-change.contrast, change.contrast))
    gain = 1 + random.uniform(-change.gain, change.gain)
    per_band = 1 + random.uniform(-change.gain / 2, change.gain / 2, patch.shape[2])
    return np.asarray(np.rint((values * gain * per_band).clip(0, 1) * 255), np.uint8)


def under_glass(patch: Pixels, labels: Pixels, value: int, random: np.random.Generator) -> tuple[Pixels, Pixels]:
    """`patch` with a nearly white, slightly noisy half-plane, and its labels; the line may miss the patch."""
    side = labels.shape[0]
    angle, offset = random.uniform(0, 2 * np.pi), random.uniform(-0.6, 0.6) * side
    rows, columns = np.mgrid[:side, :side] - side / 2
    covered = (np.cos(angle) * columns + np.sin(angle) * rows > offset) & (labels != IGNORE)
    white = random.uniform(222, 250) + random.uniform(-4, 4, patch.shape[2]) + random.normal(0, 2, patch.shape)
    glass = np.rint(white.clip(0, 255)).astype(np.uint8)
    return np.where(covered[..., None], glass, patch), np.where(covered, np.uint8(value), labels)

"""Scores of a bundle on labelled images: dense coverage of the lattice, by the code that inference runs on a device."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foveate.schema import BundleCard
from model.datasets.patches import IGNORE, Labelled, mean_colour, patch_at, thumbnail
from model.metrics import ClassCounts, count_classes
from model.policy import choose
from model.predictor import PatchBatch, Predictor
from model.resample import bilinear_weights
from raster.geometry import Region, Size
from raster.grid import Lattice, make_lattice

__all__ = ["Score", "evaluate", "predict", "report"]

log = logging.getLogger(__name__)

_BATCH = 8
_STRIP = 512


@dataclass(frozen=True)
class Score:
    """One policy on a set of images: pooled counts, those of each image, and forwards by field of view."""

    counts: ClassCounts
    by_image: dict[str, ClassCounts]
    patches_by_fov: list[int]


def evaluate(predictor: Predictor, images: list[Labelled], policies: list[str], overlap: float) -> dict[str, Score]:
    """The score of every policy over `images`; pixels labelled IGNORE are left out."""
    scores = {}
    for policy in policies:
        by_image, patches = {}, np.zeros(len(predictor.card.fovs), np.int64)
        for image in images:
            mask, chosen = predict(predictor, image.pixels, policy, overlap)
            by_image[image.name] = count_classes(mask, image.labels, len(predictor.card.classes), IGNORE)
            patches += chosen
        counts = sum(list(by_image.values())[1:], next(iter(by_image.values())))
        scores[policy] = Score(counts, by_image, patches.tolist())
        log.info("%s: mIoU %.4f, patches by field of view %s", policy, counts.mean_iou(), patches.tolist())
    return scores


def predict(
    predictor: Predictor, pixels: NDArray[np.uint8], policy: str, overlap: float
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Channel index of every pixel (H, W), and how many patches saw each field of view (D,).

    `pixels` (H, W, C) lie on the bundle's working grid. `policy` is one that reads a single field of view per cell.
    """
    card = predictor.card
    size = Size(pixels.shape[1], pixels.shape[0])
    lattice = make_lattice(size, card.patch_size, tuple(card.fovs), overlap)
    choice = choose(_distribution(predictor, pixels, lattice), policy, card.mapping)
    if choice.kind != "single":
        raise ValueError(f"policy {policy} reads several fields of view at one place")
    sums = predictor.open_block(size, lattice.overlap_px)
    cells = [(column, row) for row in range(lattice.rows) for column in range(lattice.columns)]
    for start in range(0, len(cells), _BATCH):
        batch = slice(start, start + _BATCH)
        predictor.add(sums, _batch(card, pixels, lattice, cells[batch], choice.index[batch]))
    mask = np.empty(size.shape, np.uint8)
    for y in range(0, size.height, _STRIP):
        strip = Region(0, y, size.width, min(_STRIP, size.height - y))
        mask[strip.slices()] = sums.part(strip)[:-1].argmax(axis=0)
    return mask, np.bincount(choice.index, minlength=len(card.fovs))


def _distribution(predictor: Predictor, pixels: NDArray[np.uint8], lattice: Lattice) -> NDArray[np.float32]:
    """(D, rows * columns): F_theta's probabilities at the lattice's centres, read bilinearly from its map."""
    card = predictor.card
    D = len(card.fovs)
    if card.foveation is None:
        return np.full((D, lattice.rows * lattice.columns), 1 / D, np.float32)
    step = card.foveation.downsample
    map_DYX = torch.from_numpy(predictor.distribution(thumbnail(pixels, step, mean_colour(card))))
    rows, columns = (
        bilinear_weights(
            (lattice.patch / 2 + torch.arange(count, dtype=torch.float64) * lattice.stride) / step - 0.5, n
        )
        for count, n in zip((lattice.rows, lattice.columns), map_DYX.shape[1:], strict=True)
    )
    at_cells = rows.to(map_DYX) @ map_DYX @ columns.to(map_DYX).T
    return at_cells.reshape(D, -1).numpy()


def _batch(
    card: BundleCard,
    pixels: NDArray[np.uint8],
    lattice: Lattice,
    cells: list[tuple[int, int]],
    index: NDArray[np.int8],
) -> PatchBatch:
    side, fill = card.patch_size, mean_colour(card)
    windows = [lattice.window(column, row) for column, row in cells]
    patches = [
        patch_at(pixels, window.grown((card.fovs[k] - side) // 2), side, fill)
        for window, k in zip(windows, index, strict=True)
    ]
    return PatchBatch(
        pixels=np.stack(patches)[:, None],
        mix=np.ones((len(cells), 1), np.float32),
        fov=index.astype(np.int64),
        origins=np.array([[window.x, window.y] for window in windows], np.int64),
        shares=np.ones(len(cells), np.float32),
        count=len(cells),
    )


def report(scores: dict[str, Score], card: BundleCard) -> dict[str, Any]:
    """The scores as plain JSON values, shares rounded to four places."""
    names = [entry.name for entry in card.classes]
    return {
        policy: {
            "miou": round(score.counts.mean_iou(), 4),
            "iou": {name: round(float(v), 4) for name, v in zip(names, score.counts.iou, strict=True)},
            "dice": {name: round(float(v), 4) for name, v in zip(names, score.counts.dice, strict=True)},
            "accuracy": round(score.counts.accuracy, 4),
            "patches_by_fov": score.patches_by_fov,
        }
        for policy, score in scores.items()
    }

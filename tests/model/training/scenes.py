"""Scenes whose best field of view is known by construction: fine texture in one half, wide context in the other.

The side of every patch is P = 16 pixels, that of the large field of view 64; a cell of the thumbnail is 16 pixels.
Fine half (bluish): every cell is striped down or across, 2 pixels a period, and that is its class, 0 or 1; shrunk four
times, stripes are grey. Wide half (yellowish): class 2 or 3, the colour of a spot of one cell in every 4 x 4; a patch
of P pixels mostly sees none, one of 64 always does.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PATCH, WIDE = 16, 64
CLASSES = 4
_ROWS, _COLUMNS = 12, 16
"""Cells of a scene."""
_GREY = 128
_TINT = {0: (-25, -25, 25), 1: (25, 25, -25)}
_SPOT = {2: (255, 40, 40), 3: (40, 255, 40)}


@dataclass(frozen=True)
class Scene:
    """`pixels` (H, W, 3) and `labels` (H, W) uint8; `best` (rows, columns): 0 or 1, -1 where either serves."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    best: NDArray[np.int64]


def make_scene(seed: int) -> Scene:
    random = np.random.default_rng(seed)
    wide = np.zeros((_ROWS, _COLUMNS), bool)
    half = slice(0, _COLUMNS // 2) if random.integers(2) else slice(_COLUMNS // 2, _COLUMNS)
    wide[:, half] = True
    context = int(random.integers(2, 4))
    classes = np.where(wide, context, random.integers(0, 2, wide.shape))
    y0, x0 = random.integers(4, size=2)
    rows, columns = np.indices(wide.shape)
    spots = wide & (rows % 4 == y0) & (columns % 4 == x0)

    labels = _grown(classes).astype(np.uint8)
    y, x = np.indices(labels.shape)
    stripes = np.where(labels == 0, x % 2, y % 2) * 140.0 - 70
    pixels = _GREY + np.where(_grown(wide), 0.0, stripes)[..., None]
    pixels = pixels + np.where(_grown(wide)[..., None], _TINT[1], _TINT[0])
    pixels = np.where(_grown(spots)[..., None], _SPOT[context], pixels)
    pixels = pixels + random.normal(0, 6, pixels.shape)

    best = wide.astype(np.int64)
    near = np.zeros_like(wide)
    near[:, _COLUMNS // 2 - 2 : _COLUMNS // 2 + 2] = True
    best[spots | (near & wide)] = -1
    return Scene(pixels.clip(0, 255).astype(np.uint8), labels, best)


def write_scenes(folder: Path, count: int) -> None:
    """`folder`/images and labels, PNG."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for k in range(count):
        scene = make_scene(k)
        Image.fromarray(scene.pixels).save(folder / f"images/{k:02d}.png")
        Image.fromarray(scene.labels).save(folder / f"labels/{k:02d}.png")


def _grown(cells: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.kron(cells, np.ones((PATCH, PATCH), np.uint8)).astype(cells.dtype)

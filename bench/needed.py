"""Which pixels of the file a dense run needs, painted pixel by pixel from what its result says about its plan.

Independent of the engine's own count: only foveation.tif, the manifest's parameters and the bundle's card are read.
"""

import json
import math
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from foveate.schema import BundleCard

TOLERANCE = 1.02
"""A level may be this much coarser than what a field of view asks for (design, section 5)."""
_ALL_FOVS = ("mean", "average", "ensemble")


def needed(out: Path, card: BundleCard) -> dict[int, NDArray[np.bool_]]:
    """By level of the file, (rows, columns): whether the pixel lies under a window that is read from that level.

    `out` is a result without a region of interest. A level that no window reads has no entry.
    """
    manifest = json.loads((out / "manifest.json").read_text())
    image, asked = manifest["image"], manifest["parameters"]
    ratio = _ratio(image, card)
    chosen = _chosen(out / "foveation.tif")
    sizes = [(int(width), int(height)) for width, height in image["levels"]]
    found: dict[int, NDArray[np.bool_]] = {}
    for index, side in enumerate(card.fovs):
        scale = (ratio[0] * side / card.patch_size, ratio[1] * side / card.patch_size)
        level = nearest_level(sizes, scale)
        examined = np.isfinite(chosen)
        cells = examined if asked["policy"] in _ALL_FOVS else examined & (chosen == index + 1)
        if cells.any():
            width, height = sizes[level]
            mask = found.setdefault(level, np.zeros((height, width), bool))
            per_pixel = (ratio[0] * width / sizes[0][0], ratio[1] * height / sizes[0][1])
            paint(mask, cells, asked["stride"], card.patch_size, side, per_pixel)
    return found


def in_whole_tiles(mask: NDArray[np.bool_], tile: tuple[int, int]) -> int:
    """How many pixels the tiles (width, height) hold that any pixel of `mask` lies in: what no codec can go below."""
    rows, columns = mask.shape
    wide, high = tile
    padded = np.pad(mask, ((0, -rows % high), (0, -columns % wide)))
    touched = padded.reshape(padded.shape[0] // high, high, padded.shape[1] // wide, wide).any(axis=(1, 3))
    heights = np.diff(np.append(np.arange(0, rows, high), rows))
    widths = np.diff(np.append(np.arange(0, columns, wide), columns))
    return int((touched * heights[:, None] * widths[None, :]).sum())


def nearest_level(sizes: list[tuple[int, int]], scale: tuple[float, float]) -> int:
    """The coarsest of the levels (width, height) that is as fine as `scale`, in pixels of the first level."""
    wide, high = sizes[0]
    fine = [
        k for k, (w, h) in enumerate(sizes) if wide / w <= scale[0] * TOLERANCE and high / h <= scale[1] * TOLERANCE
    ]
    return max(fine, key=lambda k: wide / sizes[k][0], default=0)


def paint(
    mask: NDArray[np.bool_],
    cells: NDArray[np.bool_],
    stride: int,
    patch: int,
    side: int,
    per_pixel: tuple[float, float],
) -> None:
    """Set all pixels of `mask` under the windows of `side` working pixels around the centres of `cells`.

    `per_pixel`: pixels of the mask per working pixel, along x and y.
    """
    for row, column in np.argwhere(cells).tolist():
        x, y = (patch / 2 + k * stride - side / 2 for k in (column, row))
        rows, columns = _span(y, side, per_pixel[1]), _span(x, side, per_pixel[0])
        mask[rows, columns] = True


def _span(start: float, side: int, scale: float) -> slice:
    return slice(max(0, math.floor(start * scale + 1e-6)), max(0, math.ceil((start + side) * scale - 1e-6)))


def _chosen(path: Path) -> NDArray[np.float32]:
    with rasterio.open(path) as file:
        chosen: NDArray[np.float32] = file.read(2)
    return chosen


def _ratio(image: dict[str, object], card: BundleCard) -> tuple[float, float]:
    """Level-0 pixels a working pixel, along x and y."""
    spacing = image["spacing"]
    if card.input.spacing is None or not isinstance(spacing, list):
        return 1.0, 1.0
    return card.input.spacing / spacing[0], card.input.spacing / spacing[1]

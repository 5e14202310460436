"""Explicit mapping: from the network's output for a large field of view to the window of the smallest.

The output shows all of the field of view that was seen; its part that shows the smallest one is enlarged to the whole.
Implicit mapping needs nothing: the output is that window already. Letters: N patches, K classes, H W samples.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from model.resample import bilinear, bilinear_weights
from raster.geometry import Region

__all__ = ["map_concentric", "map_exact", "map_parity"]


def map_exact(output_NKHW: Tensor, seen: Region, smallest: Region) -> Tensor:
    """The samples of `output_NKHW`, which spans the window `seen`, read at as many samples across `smallest`.

    Bilinear, clamped to the output; exact for any two windows, concentric or not.
    """
    rows, columns = output_NKHW.shape[-2:]
    kind = output_NKHW.device, output_NKHW.dtype
    height, by_row = _weights(rows, smallest.y - seen.y, smallest.height, seen.height, *kind)
    width, by_column = _weights(columns, smallest.x - seen.x, smallest.width, seen.width, *kind)
    return by_row @ output_NKHW[..., height, width] @ by_column.T


def map_concentric(output_NKPP: Tensor, seen: int, smallest: int) -> Tensor:
    """`map_exact` for windows of these sides, in pixels, about one centre."""
    # Twice the sides, so that the corner is whole even where one is odd and the other even.
    whole, corner = Region(0, 0, 2 * seen, 2 * seen), seen - smallest
    return map_exact(output_NKPP, whole, Region(corner, corner, 2 * smallest, 2 * smallest))


def map_parity(output_NKHW: Tensor, index: int, bank: Sequence[int], *, stride: int = 1) -> Tensor:
    """The authors' crop for the field of view `index` (0-based) of square patches; right for integer ratios only.

    `stride` is that of the network's output in training; at inference the output has the patch's size already.
    """
    side, smallest = bank[index], bank[0]
    ratio = side // smallest
    extent = smallest // ratio // stride
    first = (side // 2 - smallest // 2) // ratio // stride
    crop = output_NKHW[..., first : first + extent, first : first + extent]
    return bilinear(crop, output_NKHW.shape[-2], output_NKHW.shape[-1])


@functools.lru_cache(maxsize=32)
def _weights(
    samples: int, offset: int, extent: int, seen: int, device: torch.device, dtype: torch.dtype
) -> tuple[slice, Tensor]:
    """The samples that are read, and their weights (samples, read).

    Kept where they are used, since bringing them there again would make the host wait.
    """
    with torch.inference_mode(False):  # training may read it too
        weights = bilinear_weights(_positions(samples, offset, extent, seen), samples)
        read = weights.any(dim=0).nonzero()
        used = slice(int(read[0]), int(read[-1]) + 1)
        return used, weights[:, used].contiguous().to(device, dtype)


def _positions(samples: int, offset: int, extent: int, seen: int) -> Tensor:
    """Fractional indices, among `samples` across `seen` pixels, of `samples` across [offset, offset + extent)."""
    centres = (torch.arange(samples, dtype=torch.float64) + 0.5) * extent / samples
    return (offset + centres) * samples / seen - 0.5

"""Sums of windowed probabilities on a device, of one scale or of several.

Letters: N patches, K classes, P patch side, H W pixels of a block.
"""

import math
from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raster.geometry import Region, Size


def stitching_window(patch: int, overlap_px: int, device: torch.device | None = None) -> Tensor:
    """(P,) float32, flat in the middle, linear ramps as wide as the overlap; symmetric and nowhere zero.

    Where two windows of a lattice with that overlap (at most half a patch) meet, their weights sum to a constant.
    """
    from_edge = torch.arange(patch, dtype=torch.float32, device=device) + 0.5
    from_edge = torch.minimum(from_edge, from_edge.flip(0))
    return (from_edge / max(overlap_px, 1)).clamp(max=1.0)


def _zeros(count: int, device: torch.device) -> Tensor:
    """float32. On a CPU numpy's, which asks the system for huge pages that are zero already, when they are touched."""
    if device.type != "cpu":
        return torch.zeros(count, device=device)
    return torch.from_numpy(np.zeros(count, np.float32))


class Accumulator:
    """Open sums of one block at one scale: softmax scores times window, and the window itself.

    Memory: (K + 1) * H * W * 4 bytes on the device. Sums are float32; the order of `add` calls is the order of the
    additions, so the same patches in the same order give the same bits.
    """

    def __init__(self, classes: int, size: Size, patch: int, overlap_px: int, device: torch.device) -> None:
        shape = classes + 1, *size.shape
        self._memory = _zeros(math.prod(shape), device)
        self._sums_KHW = self._memory.view(shape)
        self._patch, self._overlap_px = patch, overlap_px
        self._windows: dict[int, Tensor] = {}
        self._touched: list[Tensor] = []

    def emptied(self, size: Size) -> Self | None:
        """Empty sums for a block of `size` in the memory of these, which end with it; None: it has not enough.

        Pages that are fresh from the system take three times as long to empty.
        """
        shape = self._sums_KHW.shape[0], *size.shape
        count = math.prod(shape)
        if count > len(self._memory):
            return None
        if sum(map(torch.numel, self._touched)) < self._sums_KHW.numel():
            for target in self._touched:
                target.zero_()
        else:
            self._sums_KHW.zero_()
        self._touched = []
        self._sums_KHW = self._memory[:count].view(shape)
        return self

    def add(self, scores_NKPP: Tensor, origins: NDArray[np.int64], shares: NDArray[np.float32]) -> None:
        """Add patches at `origins` (N, 2), x and y in the block's pixels; what hangs over the block is cut.

        `shares` (N,) weigh a patch against others of the same place (1, or 1/D for an ensemble's members).
        """
        for score_KPP, (x, y), share in zip(scores_NKPP, origins.tolist(), shares.tolist(), strict=True):
            self.add_patch(score_KPP, x, y, share)

    def add_patch(self, score_KPP: Tensor, x: int, y: int, share: float = 1.0) -> None:
        """Add a patch, or the part of one whose side is a whole share of a patch's, as `add`; ramps are that share of
        the overlap."""
        _, height, width = self._sums_KHW.shape
        side = score_KPP.shape[-1]
        rows, columns = (slice(max(0, start), min(start + side, length)) for start, length in ((y, height), (x, width)))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        inner = slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x)
        weight = self._window(side)[inner]
        if share != 1.0:
            weight = weight * share
        target = self._sums_KHW[:, rows, columns]
        target[:-1].addcmul_(score_KPP[(slice(None), *inner)], weight)
        target[-1] += weight
        self._touched.append(target)

    def _window(self, side: int) -> Tensor:
        if side not in self._windows:
            line = stitching_window(side, self._overlap_px * side // self._patch, self._memory.device)
            self._windows[side] = line[:, None] * line[None, :]
        return self._windows[side]

    def part(self, region: Region) -> NDArray[np.float32]:
        """(K + 1, height, width): the sums over `region`, the summed window last."""
        return self.there(region).cpu().numpy()

    @property
    def whole(self) -> Tensor:
        """(K + 1, H, W): all sums, where they lie."""
        return self._sums_KHW

    def there(self, region: Region) -> Tensor:
        """As `part`, where it lies: a view on the device."""
        rows, columns = region.slices()
        return self._sums_KHW[:, rows, columns]


class BlockSums:
    """Open sums of one block, of each scale apart: a patch is added at its own, whatever the scale.

    Changes over time: sums of a scale are opened when the first patch of it comes.
    """

    def __init__(self, open_scale: Callable[[int], Accumulator]) -> None:
        """`open_scale` gives empty sums for the block at a scale: so many working pixels a side make one pixel."""
        self._open = open_scale
        self.by_scale: dict[int, Accumulator] = {}

    def at(self, scale: int) -> Accumulator:
        if scale not in self.by_scale:
            self.by_scale[scale] = self._open(scale)
        return self.by_scale[scale]

"""Sums of windowed probabilities on a device.

Letters: N patches, K classes, P patch side, H W working pixels of a block, R C rows and columns of an enlarged part.
"""

import math
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raster.geometry import Region, Size

_STRIP_ROWS = 128
"""Rows in which a coarse patch is enlarged on a CPU: what is between fits its cache."""


def stitching_window(patch: int, overlap_px: int, device: torch.device | None = None) -> Tensor:
    """(P,) float32, flat in the middle, linear ramps as wide as the overlap; symmetric and nowhere zero.

    Where two windows of a lattice with that overlap (at most half a patch) meet, their weights sum to a constant.
    """
    from_edge = torch.arange(patch, dtype=torch.float32, device=device) + 0.5
    from_edge = torch.minimum(from_edge, from_edge.flip(0))
    return (from_edge / max(overlap_px, 1)).clamp(max=1.0)


def enlarged(values_KHW: Tensor, scale: int, rows: range, columns: range) -> Tensor:
    """(K, rows, columns): part of `values_KHW` with every pixel as a square of `scale`, linear between their centres.

    `rows` and `columns` count the pixels of the whole enlarged array, and lie inside it.
    """
    top, bottom = _sources(rows, scale, values_KHW.shape[1])
    y = top * scale
    wide_KHC = _wider(values_KHW[:, top:bottom], scale, columns)
    return _taller(wide_KHC, scale, range(rows.start - y, rows.stop - y))


def _wider(values_KHW: Tensor, scale: int, columns: range) -> Tensor:
    """(K, H, columns), as `enlarged` along one axis."""
    if scale == 1:
        return values_KHW[:, :, columns.start : columns.stop]
    _, height, width = values_KHW.shape
    left, right = _sources(columns, scale, width)
    part_1KHW, size = values_KHW[None, :, :, left:right], (height, (right - left) * scale)
    wide_KHC = torch.nn.functional.interpolate(part_1KHW, size=size, mode="bilinear", align_corners=False)[0]
    return wide_KHC[:, :, columns.start - left * scale : columns.stop - left * scale]


def _taller(values_KHW: Tensor, scale: int, rows: range) -> Tensor:
    """(K, rows, W), as `enlarged` along the other axis: between the centres of two rows lie `scale` new ones, which are
    mixed from whole rows, in half of the time that `interpolate` takes."""
    if scale == 1:
        return values_KHW[:, rows.start : rows.stop]
    # Counted from the centre of a row before the first.
    start = rows.start + scale - scale // 2
    first, last = start // scale, (start + len(rows) - 1) // scale
    near = torch.arange(first - 1, last + 1, device=values_KHW.device).clamp(0, values_KHW.shape[1] - 1)
    source_KHW = values_KHW.index_select(1, near)
    share = (torch.arange(scale, dtype=torch.float32, device=near.device) + scale // 2 + 0.5) / scale - 0.5
    mixed_KHSW = torch.lerp(source_KHW[:, :-1, None], source_KHW[:, 1:, None], share[:, None])
    return mixed_KHSW.flatten(1, 2)[:, start - first * scale : start - first * scale + len(rows)]


def _sources(places: range, scale: int, length: int) -> tuple[int, int]:
    """The pixels, of `length`, that these places of the enlarged ones lie between: from, and up to."""
    return max(0, (places.start - scale // 2) // scale), min(length, (places.stop - 1 + scale // 2) // scale + 1)


def _zeros(count: int, device: torch.device) -> Tensor:
    """float32. On a CPU numpy's, which asks the system for huge pages that are zero already, when they are touched."""
    if device.type != "cpu":
        return torch.zeros(count, device=device)
    return torch.from_numpy(np.zeros(count, np.float32))


class Accumulator:
    """Open sums of one block: softmax scores times window, and the window itself.

    Memory: (K + 1) * H * W * 4 bytes on the device. Sums are float32; the order of `add` calls is the order of the
    additions, so the same patches in the same order give the same bits.
    """

    def __init__(self, classes: int, size: Size, patch: int, overlap_px: int, device: torch.device) -> None:
        shape = classes + 1, *size.shape
        self._memory = _zeros(math.prod(shape), device)
        self._sums_KHW = self._memory.view(shape)
        self._patch, self._overlap_px = patch, overlap_px
        line = stitching_window(patch, overlap_px, device)
        self._window_PP = line[:, None] * line[None, :]

    def emptied(self, size: Size) -> Self | None:
        """Empty sums for a block of `size` in the memory of these, which end with it; None: it has not enough.

        Pages that are fresh from the system take three times as long to empty.
        """
        shape = self._sums_KHW.shape[0], *size.shape
        count = math.prod(shape)
        if count > len(self._memory):
            return None
        self._sums_KHW = self._memory[:count].zero_().view(shape)
        return self

    def add(self, scores_NKPP: Tensor, origins: NDArray[np.int64], shares: NDArray[np.float32]) -> None:
        """Add patches at `origins` (N, 2), x and y in the block's working pixels; what hangs over the block is cut.

        `shares` (N,) weigh a patch against others of the same place (1, or 1/D for an ensemble's members).
        """
        _, height, width = self._sums_KHW.shape
        for score_KPP, (x, y), share in zip(scores_NKPP, origins.tolist(), shares.tolist(), strict=True):
            h, w = min(self._window_PP.shape[0], height - y), min(self._window_PP.shape[1], width - x)
            weight = self._window_PP[:h, :w] * share
            target = self._sums_KHW[:, y : y + h, x : x + w]
            target[:-1].addcmul_(score_KPP[:, :h, :w], weight)
            target[-1] += weight

    def add_enlarged(self, score_KPP: Tensor, x: int, y: int, scale: int) -> None:
        """Add a patch of which every pixel is a square of `scale` working pixels; the first is at (x, y).

        Scores are interpolated between pixels' centres; the window grows with the patch. What hangs over the block, on
        any side, is cut before it is enlarged.
        """
        _, height, width = self._sums_KHW.shape
        line = stitching_window(self._patch * scale, self._overlap_px * scale, score_KPP.device)
        x0, x1 = max(0, x), min(width, x + self._patch * scale)
        y0, y1 = max(0, y), min(height, y + self._patch * scale)
        if x0 >= x1 or y0 >= y1:
            return
        wide_KPC = _wider(score_KPP, scale, range(x0 - x, x1 - x))
        strip = _STRIP_ROWS if self._sums_KHW.device.type == "cpu" else y1 - y0
        for top in range(y0, y1, strip):
            end = min(top + strip, y1)
            weight = line[top - y : end - y, None] * line[None, x0 - x : x1 - x]
            target = self._sums_KHW[:, top:end, x0:x1]
            target[:-1].addcmul_(_taller(wide_KPC, scale, range(top - y, end - y)), weight)
            target[-1] += weight

    def part(self, region: Region) -> NDArray[np.float32]:
        """(K + 1, height, width): the sums over `region`, the summed window last."""
        return self.there(region).cpu().numpy()

    def there(self, region: Region) -> Tensor:
        """As `part`, where it lies: a view on the device."""
        rows, columns = region.slices()
        return self._sums_KHW[:, rows, columns]

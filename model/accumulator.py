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
    """(K, H, columns), as `enlarged` along one axis, in less time than `interpolate` takes: every `scale`-th column is
    a mix of two neighbours with the same shares."""
    if scale == 1:
        return values_KHW[:, :, columns.start : columns.stop]
    left, right, shares, skipped = _neighbours(values_KHW, 2, scale, columns)
    mixed_KHCS = left.new_empty((*left.shape, scale))
    for place, share in enumerate(shares):
        torch.lerp(left, right, share, out=mixed_KHCS[..., place])
    return mixed_KHCS.flatten(2)[..., skipped : skipped + len(columns)]


def _taller(values_KHW: Tensor, scale: int, rows: range) -> Tensor:
    """(K, rows, W), as `enlarged` along the other axis: whole rows are mixed."""
    if scale == 1:
        return values_KHW[:, rows.start : rows.stop]
    above, below, shares, skipped = _neighbours(values_KHW, 1, scale, rows)
    shares_S1 = torch.tensor(shares, device=values_KHW.device)[:, None]
    mixed_KHSW = torch.lerp(above[:, :, None], below[:, :, None], shares_S1)
    return mixed_KHSW.flatten(1, 2)[:, skipped : skipped + len(rows)]


def _neighbours(values_KHW: Tensor, axis: int, scale: int, places: range) -> tuple[Tensor, Tensor, list[float], int]:
    """Between the centres of two pixels lie `scale` new ones. Of those among which `places` lie along an axis: the
    first and the second pixel of every two, the second one's shares (scale,), and how many come before the first place.

    Beyond the border lies the same as at it.
    """
    # Counted from the centre of a pixel before the first.
    start = places.start + scale - scale // 2
    first, last = start // scale - 1, (start + len(places) - 1) // scale
    length = values_KHW.shape[axis]
    parts = [values_KHW.narrow(axis, max(first, 0), min(last + 1, length) - max(first, 0))]
    if first < 0:
        parts.insert(0, values_KHW.narrow(axis, 0, 1))
    if last == length:
        parts.append(values_KHW.narrow(axis, length - 1, 1))
    source = torch.cat(parts, axis) if len(parts) > 1 else parts[0]
    shares = [(place + scale // 2 + 0.5) / scale - 0.5 for place in range(scale)]
    count = last - first
    return source.narrow(axis, 0, count), source.narrow(axis, 1, count), shares, start - (first + 1) * scale


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

"""Sums of windowed probabilities on a device, and the finished labels that come out of them.

Letters: N patches, K classes, P patch side, H W working pixels of a block, R C rows and columns of an output strip.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.device import Ferry
from raster.geometry import Region, Size

_STRIP_BYTES = 2 << 20
"""Probabilities of one output strip: finishing goes over them several times, which a processor's cache makes quick."""


_STRIP_ROWS = 256
"""Rows in which a coarse patch is enlarged: what is between fits the cache."""


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
    if scale == 1:
        return values_KHW[:, rows.start : rows.stop, columns.start : columns.stop]
    _, height, width = values_KHW.shape
    top, bottom = _sources(rows, scale, height)
    left, right = _sources(columns, scale, width)
    part_1KHW = values_KHW[None, :, top:bottom, left:right]
    size = ((bottom - top) * scale, (right - left) * scale)
    wide_KRC = torch.nn.functional.interpolate(part_1KHW, size=size, mode="bilinear", align_corners=False)[0]
    y, x = top * scale, left * scale
    return wide_KRC[:, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]


def _sources(places: range, scale: int, length: int) -> tuple[int, int]:
    """The pixels, of `length`, that these places of the enlarged ones lie between: from, and up to."""
    return max(0, (places.start - scale // 2) // scale), min(length, (places.stop - 1 + scale // 2) // scale + 1)


class Accumulator:
    """Open sums of one block: softmax scores times window, and the window itself.

    Memory: (K + 1) * H * W * 4 bytes on the device. Sums are float32; the order of `add` calls is the order of the
    additions, so the same patches in the same order give the same bits.
    """

    def __init__(self, classes: int, size: Size, patch: int, overlap_px: int, device: torch.device) -> None:
        self._sums_KHW = torch.zeros((classes + 1, *size.shape), device=device)
        self._patch, self._overlap_px = patch, overlap_px
        line = stitching_window(patch, overlap_px, device)
        self._window_PP = line[:, None] * line[None, :]

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
        for top in range(y0, y1, _STRIP_ROWS):
            end = min(top + _STRIP_ROWS, y1)
            weight = line[top - y : end - y, None] * line[None, x0 - x : x1 - x]
            target = self._sums_KHW[:, top:end, x0:x1]
            target[:-1].addcmul_(enlarged(score_KPP, scale, range(top - y, end - y), range(x0 - x, x1 - x)), weight)
            target[-1] += weight

    def part(self, region: Region) -> NDArray[np.float32]:
        """(K + 1, height, width): the sums over `region`, the summed window last."""
        return self.there(region).cpu().numpy()

    def there(self, region: Region) -> Tensor:
        """As `part`, where it lies: a view on the device."""
        rows, columns = region.slices()
        return self._sums_KHW[:, rows, columns]


@dataclass(frozen=True)
class Taps:
    """One output axis over the working pixels at hand: level-0 pixel u is (1 - t) * first + t * second."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    t: NDArray[np.float32]

    def __getitem__(self, part: slice) -> "Taps":
        return Taps(self.first[part], self.second[part], self.t[part])

    @property
    def plain(self) -> bool:
        """Whether every output pixel is one working pixel."""
        return not self.t.any()


LABELS, UNCERTAINTY, PROBABILITIES = "labels", "uncertainty", "probabilities"
"""Layers of what `finish` makes; the first always."""

UNCERTAINTY_STEPS = 1024
"""Uncertainty comes in steps of one in so many, which makes it small; -1 where nothing was examined."""

Layers = dict[str, NDArray[Any]]
"""By name: `labels` uint8 (R, C); `uncertainty` int16 (R, C); `probabilities` float16 (K, R, C), NaN = not examined."""


OpenSums = NDArray[np.float32] | Tensor
"""(K + 1, H, W) as from `Accumulator.there` or `Accumulator.part`."""


def finish(
    sums: OpenSums,
    rows: Taps,
    columns: Taps,
    *,
    valid: NDArray[np.bool_] | None,
    downsample: int,
    values: NDArray[np.uint8],
    nodata: int,
    ferry: Ferry,
    extras: Collection[str] = (),
    shown: NDArray[np.float32] | None = None,
) -> dict[str, Tensor]:
    """The class values of (R, C) output pixels, and the layers named by `extras`: what `Layers` holds, on the device.

    `sums` (K + 1, H, W); `rows` and `columns` map level-0 pixels to its pixels;
    `valid` (level-0 rows, columns) or None for all; `downsample` m level-0 pixels a side make one output pixel (the
    last ones may be cut), which gets the class of the highest mean probability over its valid examined pixels, ties to
    the lower class; none: `nodata`. `values` (K,) are the class values of the channels. `shown` (H, W), 0 or 1, or None
    for all: the sums that count.
    """
    sums_KHW = sums if isinstance(sums, Tensor) else ferry.up(sums)[0]
    if shown is not None:
        sums_KHW = sums_KHW * ferry.up(shown)[0]
    classes, wide = sums_KHW.shape[0] - 1, len(columns.t)
    strip = max(1, _STRIP_BYTES // (4 * (classes + 1) * max(1, wide)) // downsample) * downsample
    # Where an output pixel is one working pixel, its weight changes neither the order of its scores nor their shares.
    one_to_one = downsample == 1 and rows.plain and columns.plain
    strips: dict[str, list[Tensor]] = {name: [] for name in (LABELS, *extras)}
    for start in range(0, len(rows.t), strip):
        part = slice(start, min(start + strip, len(rows.t)))
        scores_KRC = _scores(sums_KHW, rows[part], columns, ferry, weighted=one_to_one)
        if valid is not None:
            scores_KRC = scores_KRC * ferry.up(valid[part])[0]
        if downsample > 1:
            scores_KRC = _summed(scores_KRC, downsample)
        examined_RC = scores_KRC[-1] > 0
        strips[LABELS].append(_labels(scores_KRC[:-1], examined_RC, values.tolist(), nodata))
        for name in extras:
            strips[name].append(_EXTRAS[name](scores_KRC[:-1], examined_RC))
    return {name: torch.cat(parts, dim=-2) for name, parts in strips.items()}


def _labels(scores_KRC: Tensor, examined_RC: Tensor, values: list[int], nodata: int) -> Tensor:
    """uint8 (R, C). Class by class, in bytes: quicker than indices of eight bytes and a table of values."""
    best = scores_KRC[0]
    labels = torch.full_like(best, values[0], dtype=torch.uint8)
    for value, scores in zip(values[1:], scores_KRC[1:], strict=True):
        labels = torch.where(scores > best, value, labels)
        best = torch.maximum(best, scores)
    return torch.where(examined_RC, labels, nodata)


def _probabilities(scores_KRC: Tensor, examined_RC: Tensor) -> Tensor:
    shares = scores_KRC / scores_KRC.sum(0).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(examined_RC, shares, torch.nan).half()


def _uncertainty(scores_KRC: Tensor, examined_RC: Tensor) -> Tensor:
    """The entropy over that of equal shares, in steps."""
    shares = scores_KRC / scores_KRC.sum(0).clamp(min=torch.finfo(torch.float32).tiny)
    entropy = torch.special.entr(shares).sum(0) / math.log(max(2, len(shares)))
    steps = (entropy * UNCERTAINTY_STEPS).round().clamp(0, UNCERTAINTY_STEPS)
    return torch.where(examined_RC, steps, -1).short()


_EXTRAS = {UNCERTAINTY: _uncertainty, PROBABILITIES: _probabilities}


def _scores(sums_KHW: Tensor, rows: Taps, columns: Taps, ferry: Ferry, *, weighted: bool) -> Tensor:
    """(K + 1, R, C) probabilities at level-0 pixels, and last 1 where the nearest working pixel was examined.

    `weighted`: all of that times the summed window.
    """
    low, high = int(rows.first.min()), int(rows.second.max()) + 1
    strip_KHW = sums_KHW[:, low:high]
    if not weighted:
        weight_HW = strip_KHW[-1:].clone()
        strip_KHW = torch.where(weight_HW > 0, strip_KHW / weight_HW.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
    shifted = Taps(rows.first - low, rows.second - low, rows.t)
    return _mixed(_mixed(strip_KHW, columns, 2, ferry), shifted, 1, ferry)


def _mixed(values_KHW: Tensor, taps: Taps, axis: int, ferry: Ferry) -> Tensor:
    """Linear interpolation along one axis; the last channel (examined or not) takes the nearer pixel."""
    if taps.plain and (np.diff(taps.first) == 1).all():
        return values_KHW.narrow(axis, int(taps.first[0]), len(taps.first))
    at_first, at_second, t = ferry.up(taps.first, taps.second, taps.t)
    first = values_KHW.index_select(axis, at_first)
    if taps.plain:
        return first
    second = values_KHW.index_select(axis, at_second)
    t = t[:, None] if axis == 1 else t[None, :]
    mixed = torch.lerp(first, second, t)
    mixed[-1] = torch.where(t <= 0.5, first[-1], second[-1])
    return mixed


def _summed(scores_KRC: Tensor, side: int) -> Tensor:
    """Sums over squares of `side` pixels; the last row and column of squares may be cut."""
    _, rows, columns = scores_KRC.shape
    padded = torch.nn.functional.pad(scores_KRC, (0, -columns % side, 0, -rows % side))
    blocks = padded.reshape(padded.shape[0], padded.shape[1] // side, side, padded.shape[2] // side, side)
    return blocks.sum((2, 4))

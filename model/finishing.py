"""From open sums to finished labels: each output pixel's class, and what else is known of it.

Letters: K classes, H W working pixels, R C rows and columns of an output strip.
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
from model.enlarging import gathered
from model.labels import labels, only
from model.sums import OpenSums

_STRIP_BYTES = 2 << 20
"""Probabilities of one output strip: finishing goes over them several times, which a processor's cache makes quick."""
_STRIP_BYTES_APART = 64 << 20
"""On a device with a memory of its own, where it is the number of strips that costs: launches, and waits for counts."""


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

    @property
    def contiguous(self) -> bool:
        """Whether these are moreover all working pixels between the first and the last."""
        return self.plain and bool((np.diff(self.first) == 1).all())


LABELS, UNCERTAINTY, PROBABILITIES = "labels", "uncertainty", "probabilities"
"""Layers of what `finish` makes; the first always."""

UNCERTAINTY_STEPS = 1024
"""Uncertainty comes in steps of one in so many, which makes it small; -1 where nothing was examined."""

Layers = dict[str, NDArray[Any]]
"""By name: `labels` uint8 (R, C); `uncertainty` int16 (R, C); `probabilities` float16 (K, R, C), NaN = not examined."""


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

    `sums` over H x W working pixels; `rows` and `columns` say where level-0 pixels lie, counted from the first of them;
    `valid` (level-0 rows, columns) or None for all; `downsample` m level-0 pixels a side make one output pixel (the
    last ones may be cut), which gets the class of the highest mean probability over its valid examined pixels, ties to
    the lower class; none: `nodata`, which is above every class value. `values` (K,) are those of the channels. `shown`
    (H, W), 0 or 1, or None for all: the sums that count.
    """
    sums = sums.on(ferry)
    # Where an output pixel is one working pixel, its weight changes neither the order of its scores nor their shares.
    one_to_one = downsample == 1 and rows.plain and columns.plain
    labels_alone = downsample == 1 and not extras
    as_they_are = rows.contiguous and columns.contiguous and sums.region_w.size.shape == (len(rows.t), len(columns.t))
    if as_they_are and labels_alone and shown is None and not sums.flat and not ferry.apart:
        labels_RC = sums.labels(values.tolist(), nodata)
        return {LABELS: labels_RC if valid is None else only(labels_RC, torch.from_numpy(valid), nodata)}
    sums_KHW = sums.working()
    if shown is not None:
        sums_KHW = sums_KHW * ferry.up(shown)[0]
    strip = _strip_rows(len(sums_KHW), len(columns.t), downsample, ferry)

    def layers(part: slice) -> dict[str, Tensor]:
        valid_RC = None if valid is None else ferry.up(valid[part])[0]
        if labels_alone and not one_to_one:
            labels_RC = _labels_between(sums_KHW, rows[part], columns, values.tolist(), nodata, ferry)
            return {LABELS: labels_RC if valid_RC is None else only(labels_RC, valid_RC, nodata)}
        scores_KRC = _scores(sums_KHW, rows[part], columns, ferry, weighted=one_to_one)
        if valid_RC is not None:
            scores_KRC = scores_KRC * valid_RC
        if downsample > 1:
            scores_KRC = _summed(scores_KRC, downsample)
        examined_RC = scores_KRC[-1] > 0
        labels_RC = labels(scores_KRC[:-1], examined_RC, values.tolist(), nodata)
        return {LABELS: labels_RC} | {name: _EXTRAS[name](scores_KRC[:-1], examined_RC) for name in extras}

    strips = [layers(slice(start, min(start + strip, len(rows.t)))) for start in range(0, len(rows.t), strip)]
    return {name: torch.cat([strip[name] for strip in strips], dim=-2) for name in (LABELS, *extras)}


def _strip_rows(channels: int, wide: int, downsample: int, ferry: Ferry) -> int:
    """Level-0 rows that are finished at once, of whole output pixels."""
    strip_bytes = _STRIP_BYTES_APART if ferry.apart else _STRIP_BYTES
    return max(1, strip_bytes // (4 * channels * max(1, wide)) // downsample) * downsample


def _labels_between(
    sums_KHW: Tensor, rows: Taps, columns: Taps, values: list[int], nodata: int, ferry: Ferry
) -> Tensor:
    """uint8 (R, C): the classes of output pixels that lie between working pixels, without most of their probabilities.

    Where the four working pixels around one are of one class, so is what is interpolated between them. Only the others
    are interpolated: they lie along the borders of what is seen.
    """
    low, high = int(rows.first.min()), int(rows.second.max()) + 1
    part_KHW = sums_KHW[:, low:high]
    own_HW = labels(part_KHW[:-1], part_KHW[-1] > 0, values, nodata)
    alike_HW = own_HW != nodata
    alike_HW[:-1] &= own_HW[:-1] == own_HW[1:]
    alike_HW[:, :-1] &= alike_HW[:, 1:] & (own_HW[:, :-1] == own_HW[:, 1:])
    labels_RC = _spread(only(own_HW, alike_HW, nodata), rows.first - low, columns.first, ferry)
    r, c = _places(labels_RC == nodata)
    taps = ferry.up(rows.first - low, rows.second - low, rows.t, columns.first, columns.second, columns.t)
    # Not taps[r], which takes longer.
    r0, r1, t, c0, c1, u = (tap.index_select(0, at) for tap, at in zip(taps, (r, r, r, c, c, c), strict=True))
    labels_RC[r, c] = labels(*_between(part_KHW, (r0, r1, t), (c0, c1, u)), values, nodata)
    return labels_RC


def _spread(labels_HW: Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64], ferry: Ferry) -> Tensor:
    """uint8 (R, C): the labels of these rows and columns."""
    if not ferry.apart:  # numpy takes bytes ten times as fast as torch does
        return torch.from_numpy(labels_HW.numpy().take(columns, axis=1).take(rows, axis=0))
    at_rows, at_columns = ferry.up(rows, columns)
    return labels_HW.index_select(1, at_columns).index_select(0, at_rows)


def _places(mask_RC: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of what is True."""
    if mask_RC.device.type != "cpu":
        r, c = mask_RC.nonzero(as_tuple=True)
        return r, c
    flat = np.flatnonzero(mask_RC.numpy())  # also many times as fast where little is
    at_rows, at_columns = np.divmod(flat, mask_RC.shape[1])
    return torch.from_numpy(at_rows), torch.from_numpy(at_columns)


def _between(
    sums_KHW: Tensor, rows: tuple[Tensor, Tensor, Tensor], columns: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """(K, N) probabilities at N places, and (N,) whether the nearest working pixel was examined; as `_scores`."""
    (r0, r1, t), (c0, c1, u) = rows, columns
    above, below = (
        torch.lerp(_shares(gathered(sums_KHW, r, c0)), _shares(gathered(sums_KHW, r, c1)), u) for r in (r0, r1)
    )
    nearest = gathered(sums_KHW[-1:], torch.where(t <= 0.5, r0, r1), torch.where(u <= 0.5, c0, c1))
    return torch.lerp(above, below, t)[:-1], nearest[0] > 0


def _shares(sums: Tensor) -> Tensor:
    """(K + 1, ...) probabilities from sums, and last 1; all 0 where nothing was examined, since the sums are."""
    return sums / sums[-1:].clamp(min=torch.finfo(torch.float32).tiny)


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
        strip_KHW = _shares(strip_KHW)
    shifted = Taps(rows.first - low, rows.second - low, rows.t)
    return _mixed(_mixed(strip_KHW, columns, 2, ferry), shifted, 1, ferry)


def _mixed(values_KHW: Tensor, taps: Taps, axis: int, ferry: Ferry) -> Tensor:
    """Linear interpolation along one axis; the last channel (examined or not) takes the nearer pixel."""
    if taps.contiguous:
        return values_KHW.narrow(axis, int(taps.first[0]), len(taps.first))
    at_first, at_second, shares = ferry.up(taps.first, taps.second, taps.t)
    first = values_KHW.index_select(axis, at_first)
    if taps.plain:
        return first
    second = values_KHW.index_select(axis, at_second)
    mixed = torch.lerp(first, second, shares[:, None] if axis == 1 else shares)
    nearest = torch.where(shares <= 0.5, at_first, at_second)
    mixed[-1] = values_KHW[-1].index_select(axis - 1, nearest)
    return mixed


def _summed(scores_KRC: Tensor, side: int) -> Tensor:
    """Sums over squares of `side` pixels; the last row and column of squares may be cut."""
    _, rows, columns = scores_KRC.shape
    padded = torch.nn.functional.pad(scores_KRC, (0, -columns % side, 0, -rows % side))
    blocks = padded.reshape(padded.shape[0], padded.shape[1] // side, side, padded.shape[2] // side, side)
    return blocks.sum((2, 4))

"""Open sums over a rectangle of working pixels, held at the scales that they were added at.

What is between the pixels of a scale is interpolated only where somebody asks: for labels, most of it never.

Letters: K classes, H W working pixels; h w pixels of a scale; R C tiles; N squares between four centres.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.device import Ferry
from model.enlarging import between, enlarged, gathered, shares_of
from model.labels import labels
from raster.geometry import Region
from raster.grid import sources

__all__ = ["OpenSums", "Part", "ScaleSums"]

_TILE = 128
"""Working pixels a side for which it is asked which scales say something; also rows that are enlarged at once."""
_AT_ONCE = 1 << 14
"""Squares between four centres whose scores are interpolated at once: what is between fits a processor's cache."""


Values = TypeVar("Values", Tensor, NDArray[np.float32])


@dataclass(frozen=True)
class ScaleSums(Generic[Values]):
    """(K + 1, h, w) float32 as from `Accumulator.there` or `Accumulator.part`: each pixel is a square of `scale`
    working pixels, and the first is (x, y) of that scale's."""

    values: Values
    scale: int = 1
    x: int = 0
    y: int = 0


Part = ScaleSums[Tensor]
"""One of them on the device."""


@dataclass(frozen=True)
class OpenSums:
    """The sums over `region_w` (working pixels): those of all `parts`, which reach as far as `sources` says, together.

    Beyond the end of a part lies the same as at it: parts end early only at the border of the image.
    """

    region_w: Region
    parts: tuple[ScaleSums[Any], ...]

    def on(self, ferry: Ferry) -> Self:
        """The same on the device."""
        moved = (
            part if isinstance(part.values, Tensor) else replace(part, values=ferry.up(part.values)[0])
            for part in self.parts
        )
        return replace(self, parts=tuple(moved))

    @property
    def flat(self) -> bool:
        """Whether all are held at the scale of working pixels."""
        return all(part.scale == 1 for part in self.parts)

    def working(self) -> Tensor:
        """(K + 1, H, W), of sums on the device."""
        return _flattened(self.parts, self.region_w)

    def labels(self, values: list[int], nodata: int) -> Tensor:
        """uint8 (H, W) of sums on a CPU: `labels` of `working()`."""
        found = np.full(self.region_w.size.shape, nodata, np.uint8)
        for area, parts in _areas(self.parts, self.region_w):
            if len(parts) == 1 and parts[0].scale > 1:
                _shown(found, self.region_w, area)[:] = _labels_at_scale(parts[0], area, values, nodata)
                continue
            for top in range(area.y, area.y1, _TILE):
                strip = Region.between(area.x, top, area.x1, min(top + _TILE, area.y1))
                sums_KHW = _flattened(parts, strip)
                own = labels(sums_KHW[:-1], sums_KHW[-1] > 0, values, nodata)
                _shown(found, self.region_w, strip)[:] = own.numpy()
        return torch.from_numpy(found)


def _shown(found_HW: NDArray[np.uint8], region_w: Region, area_w: Region) -> NDArray[np.uint8]:
    return found_HW[area_w.slices(region_w.x, region_w.y)]


def _places(part: Part, region_w: Region) -> tuple[range, range]:
    """Rows and columns of working pixels, counted from where the part's first pixel begins."""
    x, y = part.x * part.scale, part.y * part.scale
    return range(region_w.y - y, region_w.y1 - y), range(region_w.x - x, region_w.x1 - x)


def _flattened(parts: Sequence[Part], region_w: Region) -> Tensor:
    """(K + 1, H, W) over the region; at least one part. From the finest to the coarsest, whichever was opened first:
    the order of additions is part of the outcome."""
    ordered = sorted(parts, key=lambda part: part.scale)
    first, *rest = (enlarged(part.values, part.scale, *_places(part, region_w)) for part in ordered)
    return sum(rest, start=first)


def _areas(parts: Sequence[Part], region_w: Region) -> Iterator[tuple[Region, list[Part]]]:
    """Rectangles of the region in which some parts say something, with these."""
    if not parts:
        return
    there_SRC = np.stack([_says_something(part, region_w) for part in parts])
    which_RC = np.tensordot(1 << np.arange(len(parts)), there_SRC.astype(np.int64), axes=1)
    top = 0
    for _, alike in groupby(which_RC, key=bytes):
        rows = list(alike)
        left = 0
        for which, run in groupby(rows[0].tolist()):
            right = left + sum(1 for _ in run)
            area = Region(left * _TILE, top * _TILE, (right - left) * _TILE, len(rows) * _TILE)
            if which:
                own = [part for index, part in enumerate(parts) if which >> index & 1]
                yield area.shifted(region_w.x, region_w.y).intersection(region_w), own
            left = right
        top += len(rows)


def _says_something(part: Part, region_w: Region) -> NDArray[np.bool_]:
    """(R, C): whether any pixel that a tile is interpolated from has a weight."""
    weights = part.values[-1].numpy()
    rows, columns = (
        [slice(*sources(tile, part.scale, length)) for tile in _tiles(places)]
        for places, length in zip(_places(part, region_w), weights.shape, strict=True)
    )
    weights_Rw = np.stack([weights[span].max(axis=0) for span in rows])
    weights_RC = np.stack([weights_Rw[:, span].max(axis=1) for span in columns], axis=1)
    return np.asarray(weights_RC > 0)


def _tiles(places: range) -> list[range]:
    return [places[start : start + _TILE] for start in range(0, len(places), _TILE)]


def _labels_at_scale(part: Part, area_w: Region, values: list[int], nodata: int) -> NDArray[np.uint8]:
    """uint8 (H, W) over the area, without most of the scores.

    Where the four pixels around some places are of one class, or of none, so is what is interpolated between them. Only
    between the others it is: they lie along the borders of what is seen.
    """
    sums_Khw, scale = part.values, part.scale
    axes = [between(places, scale) for places in _places(part, area_w)]
    rows, columns = (
        np.arange(pairs.start, pairs.stop + 1).clip(0, length - 1)
        for (pairs, _), length in zip(axes, sums_Khw.shape[1:], strict=True)
    )
    around = sums_Khw[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    own = labels(around[:-1], around[-1] > 0, values, nodata).numpy()
    own = own.take(columns - columns[0], axis=1).take(rows - rows[0], axis=0)
    first = own[:-1, :-1]
    alike = (first == own[1:, :-1]) & (first == own[:-1, 1:]) & (first == own[1:, 1:])
    found: NDArray[np.uint8] = first.take(np.arange(first.shape[1] * scale) // scale, axis=1)
    found = found.take(np.arange(first.shape[0] * scale) // scale, axis=0)
    squares = found.reshape(first.shape[0], scale, first.shape[1], scale)
    r, c = np.divmod(np.flatnonzero(~alike), first.shape[1])
    for start in range(0, len(r), _AT_ONCE):
        some_r, some_c = r[start : start + _AT_ONCE], c[start : start + _AT_ONCE]
        corners = [
            [torch.from_numpy(at[some + one]) for one in (0, 1)] for at, some in ((rows, some_r), (columns, some_c))
        ]
        for y, x, scores in _scores_between(sums_Khw, scale, *corners):
            squares[some_r, y, some_c, x] = labels(scores[:-1], scores[-1] > 0, values, nodata).numpy()
    (_, down), (_, along) = axes
    return found[down : down + area_w.height, along : along + area_w.width]


def _scores_between(
    sums_Khw: Tensor, scale: int, rows: Sequence[Tensor], columns: Sequence[Tensor]
) -> Iterator[tuple[int, int, Tensor]]:
    """Of N squares between four centres each, at the first and second of `rows` and `columns` (N,): every row and
    column of a square, with the sums (K + 1, N) there."""
    corners = [[gathered(sums_Khw, row, column) for column in columns] for row in rows]
    for x, share_x in enumerate(shares_of(scale)):
        above, below = (torch.lerp(left, right, share_x) for left, right in corners)
        for y, share_y in enumerate(shares_of(scale)):
            yield y, x, torch.lerp(above, below, share_y)

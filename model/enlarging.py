"""Pixels of a coarser scale as squares of working pixels, linear between their centres.

Letters: K channels, H W pixels of the coarser scale, N places.
"""

import torch
from torch import Tensor

from raster.grid import sources

__all__ = ["between", "enlarged", "gathered", "shares_of"]


def enlarged(values_KHW: Tensor, scale: int, rows: range, columns: range) -> Tensor:
    """(K, rows, columns): part of `values_KHW` with every pixel as a square of `scale`, linear between their centres.

    `rows` and `columns` count the pixels of the whole enlarged array, and lie inside it.
    """
    top, bottom = sources(rows, scale, values_KHW.shape[1])
    y = top * scale
    return _taller(_wider(values_KHW[:, top:bottom], scale, columns), scale, range(rows.start - y, rows.stop - y))


def _wider(values_KHW: Tensor, scale: int, columns: range) -> Tensor:
    """(K, H, columns), as `enlarged` along one axis, in less time than `interpolate` takes: every `scale`-th column is
    a mix of two neighbours with the same shares."""
    if scale == 1:
        return values_KHW[:, :, columns.start : columns.stop]
    left, right, skipped = _neighbours(values_KHW, 2, scale, columns)
    mixed_KHCS = left.new_empty((*left.shape, scale))
    for place, share in enumerate(shares_of(scale)):
        torch.lerp(left, right, share, out=mixed_KHCS[..., place])
    return mixed_KHCS.flatten(2)[..., skipped : skipped + len(columns)]


def _taller(values_KHW: Tensor, scale: int, rows: range) -> Tensor:
    """(K, rows, W), as `enlarged` along the other axis: whole rows are mixed."""
    if scale == 1:
        return values_KHW[:, rows.start : rows.stop]
    above, below, skipped = _neighbours(values_KHW, 1, scale, rows)
    shares_S1 = torch.tensor(shares_of(scale), device=values_KHW.device)[:, None]
    mixed_KHSW = torch.lerp(above[:, :, None], below[:, :, None], shares_S1)
    return mixed_KHSW.flatten(1, 2)[:, skipped : skipped + len(rows)]


def between(places: range, scale: int) -> tuple[range, int]:
    """The pairs of pixels between whose centres these places of the enlarged ones lie, by the first of each pair (-1:
    before the border), and how many places of the first pair come before them: between two centres lie `scale`."""
    # Counted from the centre of a pixel before the first.
    start = places.start + scale - scale // 2
    first, last = start // scale - 1, (start + len(places) - 1) // scale
    return range(first, last), start - (first + 1) * scale


def shares_of(scale: int) -> list[float]:
    """(scale,): at the places between two centres, the second pixel's share."""
    return [(place + scale // 2 + 0.5) / scale - 0.5 for place in range(scale)]


def gathered(values_KHW: Tensor, rows_N: Tensor, columns_N: Tensor) -> Tensor:
    """(K, N): the values at N places."""
    channels, height, width = values_KHW.shape
    apart, down, along = values_KHW.stride()
    flat = values_KHW.as_strided((channels, (height - 1) * down + (width - 1) * along + 1), (apart, 1))
    index = rows_N * down + columns_N * along
    return torch.stack([channel.index_select(0, index) for channel in flat])


def _neighbours(values_KHW: Tensor, axis: int, scale: int, places: range) -> tuple[Tensor, Tensor, int]:
    """The first and the second pixel of every pair `between` which the places lie, and how many places come before.

    Beyond the border lies the same as at it.
    """
    pairs, skipped = between(places, scale)
    length = values_KHW.shape[axis]
    parts = [values_KHW.narrow(axis, max(pairs.start, 0), min(pairs.stop + 1, length) - max(pairs.start, 0))]
    if pairs.start < 0:
        parts.insert(0, values_KHW.narrow(axis, 0, 1))
    if pairs.stop == length:
        parts.append(values_KHW.narrow(axis, length - 1, 1))
    source = torch.cat(parts, axis) if len(parts) > 1 else parts[0]
    return source.narrow(axis, 0, len(pairs)), source.narrow(axis, 1, len(pairs)), skipped

"""Resampling of tensors whose last two axes are rows and columns, half-pixel centres, and the low-resolution image."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["area", "area_shares", "bilinear", "bilinear_weights", "low_resolution", "low_resolution_shape"]


def bilinear(values_NCHW: Tensor, rows: int, columns: int) -> Tensor:
    """Bilinear and not antialiased; the identity where the size is the same already."""
    return functional.interpolate(values_NCHW, (rows, columns), mode="bilinear", align_corners=False)


def area(values_NCHW: Tensor, rows: int, columns: int) -> Tensor:
    """Every sample is the mean over the rectangle that it covers; for shrinking, by any ratio."""
    by_row = _area_weights(values_NCHW.shape[-2], rows).to(values_NCHW)
    by_column = _area_weights(values_NCHW.shape[-1], columns).to(values_NCHW)
    return by_row @ values_NCHW @ by_column.T


def bilinear_weights(positions: Tensor, length: int) -> Tensor:
    """Matrix (positions, `length`) that reads `length` samples at fractional indices, clamped to the first and last."""
    clamped = positions.to(torch.float64).clamp(0, length - 1)
    below = clamped.floor().long()
    weight = clamped - below
    matrix = torch.zeros(len(positions), length, dtype=torch.float64)
    matrix.scatter_add_(1, below[:, None], (1 - weight)[:, None])
    matrix.scatter_add_(1, (below + 1).clamp(max=length - 1)[:, None], weight[:, None])
    return matrix.to(torch.float32)


def low_resolution_shape(height: int, width: int, step: int, aspect: int = 1) -> tuple[int, int]:
    """Rows and columns of the low-resolution image, whose pixel stands for `step` rows and `step * aspect` columns.

    Half rounds to even, as in the authors' code; never less than 1.
    """
    return max(1, round(height / step)), max(1, round(width / (step * aspect)))


def low_resolution(image_NCHW: Tensor, step: int, aspect: int = 1, *, antialias: bool) -> Tensor:
    """What F_theta sees of a normalised image; `antialias` is off for the authors' models."""
    shape = low_resolution_shape(image_NCHW.shape[-2], image_NCHW.shape[-1], step, aspect)
    return (area if antialias else bilinear)(image_NCHW, *shape)


def area_shares(pixels: range, length: int, samples: int) -> tuple[slice, Tensor]:
    """Of an axis of `length` that becomes `samples`: those that `pixels` touch, and (touched, pixels) their shares."""
    touched = slice(pixels.start * samples // length, -(-pixels.stop * samples // length))
    edges = torch.arange(touched.start, touched.stop + 1, dtype=torch.float64) * length / samples
    places = torch.arange(pixels.start, pixels.stop, dtype=torch.float64)
    shared = torch.minimum(edges[1:, None], places + 1) - torch.maximum(edges[:-1, None], places)
    return touched, (shared.clamp(min=0) * samples / length).to(torch.float32)


def _area_weights(length: int, samples: int) -> Tensor:
    """Matrix (samples, length): the share of every input pixel in every output sample."""
    return area_shares(range(length), length, samples)[1]

"""Which part of a brightfield slide is worth examining: a generous tissue mask at thumbnail scale."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from raster.rows import Rows, bands

__all__ = ["Tissue"]

_BRIGHT = 200
"""Glass under a brightfield microscope is at least this bright; a slide without such pixels is examined whole."""
_CONTRAST = 8
"""Grey levels by which tissue is darker, or more coloured, than glass. Low: pale fat and mucus count as tissue."""
_LEAST_GLASS = 0.005
_DILATION = 2


class Tissue:
    """Where a thumbnail may show tissue: an array (height, width) of bool, computed row by row as it is read.

    `thumbnail` is (height, width, 3) uint8 RGB, `valid` (height, width) is not 0 where there is data. Glass is the
    commonest bright, grey colour; whatever differs from it by a little counts as tissue, and so do its surroundings.
    A dark background (fluorescence), no glass at all or nothing but glass give True everywhere that is valid: never an
    empty mask.
    """

    dtype = np.dtype(bool)

    def __init__(self, thumbnail: Rows, valid: Rows) -> None:
        self._thumbnail, self._valid = thumbnail, valid
        self._glass = _glass_levels(thumbnail, valid)
        if self._glass is not None and not any(self[rows].any() for rows in bands(thumbnail.shape[0])):
            self._glass = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self._valid.shape

    def __getitem__(self, rows: slice, /) -> NDArray[np.bool_]:
        first, last, _ = rows.indices(self.shape[0])
        if self._glass is None:
            return self._valid[first:last] > 0
        above = min(first, _DILATION)
        around = slice(first - above, last + _DILATION)
        data = self._valid[around] > 0
        darkest, colour = _looks(self._thumbnail[around])
        dark_level, colour_level = self._glass
        differs = (darkest.astype(np.int16) < dark_level - _CONTRAST) | (colour > colour_level + _CONTRAST)
        tissue: NDArray[np.bool_] = (_dilated(differs & data) & data)[above : above + last - first]
        return tissue


def _glass_levels(thumbnail: Rows, valid: Rows) -> tuple[int, int] | None:
    """How dark and how coloured glass is, by its commonest values; None where too little of the slide shows any."""
    dark, colours, examined = np.zeros(256, np.int64), np.zeros(256, np.int64), 0
    for rows in bands(thumbnail.shape[0]):
        data = valid[rows] > 0
        darkest, colour = _looks(thumbnail[rows])
        glass = data & (darkest >= _BRIGHT)
        examined += int(data.sum())
        dark += np.bincount(darkest[glass], minlength=256)
        colours += np.bincount(colour[glass], minlength=256)
    if dark.sum() < _LEAST_GLASS * max(1, examined):
        return None
    return int(dark.argmax()), int(colours.argmax())


def _looks(rgb: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(rows, width) each: the darkest channel, and how far the lightest is from it."""
    darkest = rgb.min(axis=2)
    return darkest, rgb.max(axis=2) - darkest


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * _DILATION + 1))
    return np.asarray(grown) > 0

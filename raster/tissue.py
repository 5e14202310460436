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
_TELLING = 0.25
"""Share of a pixel that has to be data: what less of it tells is lost in the rounding of the mixture."""


class Tissue:
    """Where a thumbnail may show tissue: an array (height, width) of bool, computed row by row as it is read.

    `thumbnail` is (height, width, 3) uint8 RGB, `valid` (height, width) the share of each pixel that is data; the rest
    of it has the colour `fill` (3,). Glass is the commonest bright, grey colour; whatever differs from it by a little
    counts as tissue, and so do its surroundings.
    A dark background (fluorescence), no glass at all or nothing but glass give True everywhere that is valid: never an
    empty mask.
    """

    dtype = np.dtype(bool)

    def __init__(self, thumbnail: Rows, valid: Rows, fill: NDArray[Any]) -> None:
        self._thumbnail, self._valid, self._fill = thumbnail, valid, fill
        self._glass = self._glass_levels()
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
        darkest, colour, telling = self._looks(around)
        dark_level, colour_level = self._glass
        differs = (darkest < dark_level - _CONTRAST) | (colour > colour_level + _CONTRAST)
        data = self._valid[around] > 0
        tissue: NDArray[np.bool_] = (_dilated(differs & telling) & data)[above : above + last - first]
        return tissue

    def _glass_levels(self) -> tuple[int, int] | None:
        """How dark and how coloured glass is, by its commonest values; None where too little shows any."""
        dark, colours, examined = np.zeros(256, np.int64), np.zeros(256, np.int64), 0
        for rows in bands(self.shape[0]):
            darkest, colour, telling = self._looks(rows)
            glass = telling & (darkest >= _BRIGHT)
            examined += int(telling.sum())
            dark += np.bincount(darkest[glass], minlength=256)
            colours += np.bincount(colour[glass], minlength=256)
        if dark.sum() < _LEAST_GLASS * max(1, examined):
            return None
        return int(dark.argmax()), int(colours.argmax())

    def _looks(self, rows: slice) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.bool_]]:
        """(rows, width) each: the darkest channel, how far the lightest is from it, and whether there is enough data to
        tell. At the borders of the data its colour is taken out of the mixture: else they would look like tissue."""
        rgb, share = self._thumbnail[rows].astype(np.int16), self._valid[rows]
        telling = share >= _TELLING
        mixed = telling & (share < 1)
        part = share[mixed][:, None]
        rgb[mixed] = np.rint((rgb[mixed] - (1 - part) * self._fill) / part).clip(0, 255)
        darkest = rgb.min(axis=2)
        return darkest, rgb.max(axis=2) - darkest, telling


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * _DILATION + 1))
    return np.asarray(grown) > 0

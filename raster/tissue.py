"""Which part of a brightfield slide is worth examining: a generous tissue mask at thumbnail scale."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

_BRIGHT = 200
"""Glass under a brightfield microscope is at least this bright; a slide without such pixels is examined whole."""
_CONTRAST = 8
"""Grey levels by which tissue is darker, or more coloured, than glass. Low: pale fat and mucus count as tissue."""
_LEAST_GLASS = 0.005
_DILATION = 2


def tissue_mask(thumbnail: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """(height, width) bool, True where there may be tissue.

    `thumbnail` is (height, width, 3) uint8 RGB, `valid` (height, width) or None: all. Glass is the commonest bright,
    grey colour; whatever differs from it by a little counts as tissue, and so does its surroundings. A dark background
    (fluorescence), no glass at all or nothing but glass give True everywhere that is valid: never an empty mask.
    """
    data = np.ones(thumbnail.shape[:2], bool) if valid is None else valid
    darkest, lightest = thumbnail.min(axis=2), thumbnail.max(axis=2)
    glass = data & (darkest >= _BRIGHT)
    if glass.sum() < _LEAST_GLASS * max(1, data.sum()):
        return data
    dark_level = _commonest(darkest[glass])
    colour_level = _commonest((lightest - darkest)[glass])
    differs = (darkest.astype(np.int16) < dark_level - _CONTRAST) | (lightest - darkest > colour_level + _CONTRAST)
    tissue = _dilated(differs & data)
    return tissue & data if (tissue & data).any() else data


def _commonest(values: NDArray[np.uint8]) -> int:
    return int(np.bincount(values, minlength=256).argmax())


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * _DILATION + 1))
    return np.asarray(grown) > 0

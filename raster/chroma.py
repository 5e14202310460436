"""Halved chroma of JPEGs brought to full size as the IJG's libjpeg does since its version 7: by the transform itself.

The 8 x 8 coefficients of a block go back through an inverse transform of twice the size (libjpeg's jidctint.c), so a
block of chroma knows nothing of its neighbours. Here the block's samples go forward first, which is the same but for
their rounding: one matrix an axis does both. Colours are ITU-R BT.601's over the full range (JFIF 1.02).
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["coloured"]

_BLOCK = 8
_STRIP = 1 << 15
"""Pixels that are coloured at once, so that what is between fits the cache: whole tiles took three times as long."""
_FROM_CHROMA = ((0.0, 1.402), (-0.344136, -0.714136), (1.772, 0.0))
"""What Cb and Cr, less 128, add to luma in red, green and blue."""


def _cosines(size: int) -> NDArray[np.float64]:
    """(frequencies, samples): the orthonormal discrete cosine transform, type II."""
    frequency, sample = np.arange(size)[:, None], np.arange(size)[None, :]
    cosines: NDArray[np.float64] = np.cos(np.pi * (2 * sample + 1) * frequency / (2 * size)) * np.sqrt(2 / size)
    cosines[0] /= np.sqrt(2)
    return cosines


_TWICE = (np.sqrt(2) * _cosines(2 * _BLOCK)[:_BLOCK].T @ _cosines(_BLOCK)).astype(np.float32)
"""(16, 8): the samples of a block along one axis at twice the size."""


def coloured(ycc: NDArray[np.uint8], halved: tuple[bool, bool]) -> NDArray[np.uint8]:
    """(height, width, RGB) of (height, width, YCbCr), whose sides are multiples of 16.

    `halved`, rows and columns: chroma has half as many samples, and each stands there twice.
    """
    out = np.empty_like(ycc)
    rows = max(1, _STRIP // (2 * _BLOCK * ycc.shape[1])) * 2 * _BLOCK
    for top in range(0, len(ycc), rows):
        _colour(ycc[top : top + rows], halved, out[top : top + rows])
    return out


def _colour(ycc: NDArray[np.uint8], halved: tuple[bool, bool], out: NDArray[np.uint8]) -> None:
    step = tuple(slice(None, None, 1 + half) for half in halved)
    cb, cr = (ycc[..., band][step].astype(np.float32) - 128 for band in (1, 2))
    luma = ycc[..., 0].astype(np.float32) + np.float32(0.5)
    for band, (of_cb, of_cr) in enumerate(_FROM_CHROMA):
        values = _full(np.float32(of_cb) * cb + np.float32(of_cr) * cr, halved)
        values += luma
        # With the half above, cutting off is rounding.
        np.copyto(out[..., band], np.clip(values, 0, 255.5, out=values), casting="unsafe")


def _full(samples: NDArray[np.float32], halved: tuple[bool, bool]) -> NDArray[np.float32]:
    if halved[0]:
        height, width = samples.shape
        samples = (_TWICE @ samples.reshape(height // _BLOCK, _BLOCK, width)).reshape(2 * height, width)
    if halved[1]:
        height, width = samples.shape
        samples = (samples.reshape(-1, _BLOCK) @ _TWICE.T).reshape(height, 2 * width)
    return samples

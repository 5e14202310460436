"""The one resampler: what a patch pixel sees of the level's pixels. The same in training and inference.

Whole-number ratios on whole-pixel phases are means over areas. Other ratios use a triangle as wide as an output pixel
(the area-weighted linear filter; bilinear with half-pixel centres where the ratio is below 1): unlike a box of broken
width, it leaves every point's centre of gravity where it was, so nothing shifts between source and mask.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raster.geometry import Region, Size

_WHOLE = 1e-6
"""Ratios and phases nearer to a whole number than this are whole."""


def support(ratio: float) -> int:
    """Input pixels beyond an output region's edge that its filter may reach, along one axis."""
    return math.ceil(max(1.0, ratio)) + 1


def footprint(box: tuple[float, float, float, float], ratio: tuple[float, float]) -> Region:
    """The input pixels that `resample` wants for `box`: its whole pixels and the filter's reach."""
    inner = Region.snapped_out(
        box[0] + _WHOLE, box[1] + _WHOLE, max(box[2] - _WHOLE, box[0]), max(box[3] - _WHOLE, box[1])
    )
    if _is_whole(box, ratio):
        return inner
    reach_x, reach_y = support(ratio[0]), support(ratio[1])
    return Region.between(inner.x - reach_x, inner.y - reach_y, inner.x1 + reach_x, inner.y1 + reach_y)


def resample(values: NDArray[Any], origin: Region, box: tuple[float, float, float, float], size: Size) -> NDArray[Any]:
    """`box` of the input frame as `size` pixels.

    `values` is (height, width) or (height, width, bands), uint8, uint16 or float32, and holds the input pixels of the
    region `origin` (see `footprint`). `box` is (x0, y0, x1, y1), in input pixels. Same dtype out.
    """
    ratio = ((box[2] - box[0]) / size.width, (box[3] - box[1]) / size.height)
    local = (box[0] - origin.x, box[1] - origin.y, box[2] - origin.x, box[3] - origin.y)
    if not _is_whole(box, ratio):
        return _by_band(values, lambda plane: _slanted(plane, size, local, min(ratio)))
    x0, y0 = round(local[0]), round(local[1])
    step_x, step_y = round(ratio[0]), round(ratio[1])
    part = values[y0 : y0 + size.height * step_y, x0 : x0 + size.width * step_x]
    if (step_x, step_y) == (1, 1):
        return part
    return _by_band(part, lambda plane: plane.reduce((step_x, step_y)))


def _slanted(plane: Image.Image, size: Size, box: tuple[float, float, float, float], ratio: float) -> Image.Image:
    if ratio >= 1:
        return plane.resize((size.width, size.height), Image.Resampling.BILINEAR, box)
    # Enlarging: an output pixel is the mean over its area, since points of the interpolant would shift a small object
    # by up to 0.05 pixels; four points are as good as the area.
    finer = plane.resize((2 * size.width, 2 * size.height), Image.Resampling.BILINEAR, box)
    return finer.reduce(2)


def _is_whole(box: tuple[float, float, float, float], ratio: tuple[float, float]) -> bool:
    return all(abs(v - round(v)) < _WHOLE for v in (*box, *ratio)) and min(ratio) > _WHOLE


def _by_band(values: NDArray[Any], change: Any) -> NDArray[Any]:
    """`change` a Pillow image of each band; three bytes go together (four would be taken for premultiplied alpha)."""
    if values.dtype == np.uint16:
        # Pillow reduces no image of 16 bits; every one of them is a float32.
        changed = _by_band(values.astype(np.float32), change)
        return np.asarray(np.rint(changed), np.uint16)
    if values.ndim == 2:
        return np.asarray(change(Image.fromarray(np.ascontiguousarray(values))))
    if values.shape[2] == 3 and values.dtype == np.uint8:
        return np.asarray(change(Image.fromarray(np.ascontiguousarray(values))))
    planes = [np.asarray(change(Image.fromarray(np.ascontiguousarray(values[..., k])))) for k in range(values.shape[2])]
    return np.stack(planes, axis=-1)

"""Whether two rasters of one size lie on the same ground."""

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from foveate.schema import ImageInfo

__all__ = ["misalignment"]


def misalignment(image: ImageInfo, other: ImageInfo) -> float | None:
    """The most that a corner of `other` lies beside the same corner of `image`, in pixels of `image`.

    None where one of them has no transform, or their systems cannot be brought together; infinity where a corner of
    `other` has no place in the system of `image`.
    """
    if image.transform is None or other.transform is None:
        return None
    corners = np.array([(0, 0), (image.width, 0), (0, image.height), (image.width, image.height)], np.float64)
    x, y = _applied(Affine(*other.transform), *corners.T)
    if image.crs is not None and other.crs is not None and image.crs != other.crs:
        try:
            x, y = pyproj.Transformer.from_crs(other.crs, image.crs, always_xy=True).transform(x, y)
        except ProjError:
            return None
    found = np.stack(_applied(~Affine(*image.transform), x, y), axis=1)
    return float(np.abs(found - corners).max()) if np.isfinite(found).all() else float("inf")


def _applied(transform: Affine, x: NDArray[np.float64], y: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    a, b, c, d, e, f = transform[:6]
    return [a * x + b * y + c, d * x + e * y + f]

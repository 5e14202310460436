"""Patches and label windows out of whole images in memory, in the geometries `center` and `parity`.

Letters: L images of a batch, D fields of view, C bands, H W pixels.
"""

import torch
from torch import Tensor

from foveate.errors import OptionInvalid
from model.geometry import Geometry
from model.resample import area, bilinear
from raster.geometry import Region, Size

__all__ = ["extract_labels", "extract_patches"]


def extract_patches(image_LCHW: Tensor, geometry: Geometry, location: tuple[int, int]) -> Tensor:
    """All fields of view at one location, resampled to the smallest: (D, L, C, P, P * aspect).

    Shrinking takes means over areas in `center`, and bilinear samples in `parity`; the smallest is copied.
    """
    windows = geometry.windows(_size(image_LCHW), location)
    return torch.stack([_patch(image_LCHW, geometry, window) for window in windows])


def extract_labels(
    label_LHW: Tensor, geometry: Geometry, location: tuple[int, int], size: Size, *, fill: int, stride: int = 1
) -> Tensor:
    """The labels that the output at one location is compared with: (L, P / stride, P * aspect / stride).

    `label_LHW` has been reduced by `stride` from an image of `size`. What lies outside is `fill`, mirrored in mirror
    mode, and cut away without padding.
    """
    window = geometry.label_window(size, location, stride)
    if geometry.outside == "none":
        window = window.intersection(Region.of(_size(label_LHW)))
    return _cut(label_LHW, window, geometry.outside == "mirror", fill)


def _size(tensor: Tensor) -> Size:
    return Size(tensor.shape[-1], tensor.shape[-2])


def _patch(image_LCHW: Tensor, geometry: Geometry, window: Region) -> Tensor:
    cut = _cut(image_LCHW, window, geometry.outside == "mirror", 0)
    if cut.shape[-2:] == geometry.patch_shape:
        return cut
    return (area if geometry.kind == "center" else bilinear)(cut, *geometry.patch_shape)


def _cut(values: Tensor, window: Region, mirror: bool, fill: int) -> Tensor:
    rows, inside_rows = _indices(window.y, window.height, values.shape[-2], mirror)
    columns, inside_columns = _indices(window.x, window.width, values.shape[-1], mirror)
    cut = values[..., rows[:, None], columns]
    return cut.where((inside_rows[:, None] & inside_columns).to(values.device), torch.tensor(fill).to(cut))


def _indices(start: int, extent: int, length: int, mirror: bool) -> tuple[Tensor, Tensor]:
    """Where to read the samples of [start, start + extent), and which of them exist."""
    index = torch.arange(start, start + extent)
    if mirror:
        if start <= -length or start + extent > 2 * length - 1:
            raise OptionInvalid(
                f"mirroring an image of {length} pixels once cannot fill a field of view of {extent}",
                hint="use zeros outside, or smaller fields of view",
            )
        index = index.abs()
        index = torch.where(index >= length, 2 * (length - 1) - index, index)
    return index.clamp(0, length - 1), (index >= 0) & (index < length)

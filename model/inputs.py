"""What a network takes: normalised pixels, and the scale channel where its card asks for one.

Letters: N patches, C bands, H W pixels.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foveate.schema import BundleCard

__all__ = ["Normalise", "log_scales", "with_scale"]


class Normalise:
    """Pixels in the bundle's dtype to float32: (value / value_scale - mean) / std, band by band."""

    def __init__(self, card: BundleCard, device: torch.device) -> None:
        shape = (1, -1, 1, 1)
        given = card.input
        self._mean = (torch.tensor(given.mean) * given.value_scale).view(shape).to(device)
        self._scale = (1 / (torch.tensor(given.std) * given.value_scale)).view(shape).to(device)

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """(N, C, H, W)."""
        return self.planes(pixels_NHWC.movedim(-1, 1))

    def planes(self, values_NCHW: Tensor) -> Tensor:
        """Of pixels, or of weighted sums of some, that have the networks' order already."""
        return (values_NCHW.float() - self._mean) * self._scale


def log_scales(fovs: Sequence[int], patch: int, device: torch.device) -> Tensor:
    """(D,) float32: log2 of every field of view over the patch's side, both in working pixels."""
    return torch.tensor([math.log2(fov / patch) for fov in fovs], device=device)


def with_scale(patches_NCHW: Tensor, log_scale_N: Tensor, scale_channel: bool) -> Tensor:
    """Normalised patches, channels-last; with one more channel that holds their log2(f / P) if `scale_channel`.

    Where fields of view are mixed, `log_scale_N` is mixed like the patches.
    """
    if scale_channel:
        plane = log_scale_N[:, None, None, None].expand(-1, 1, *patches_NCHW.shape[2:])
        patches_NCHW = torch.cat([patches_NCHW, plane], dim=1)
    return patches_NCHW.contiguous(memory_format=torch.channels_last)

"""Pixels as the networks take them."""

import torch
from torch import Tensor

from foveate.schema import BundleCard

__all__ = ["Normalise"]


class Normalise:
    """(N, H, W, C) in the bundle's dtype to (N, C, H, W) float32: (value / value_scale - mean) / std, band by band."""

    def __init__(self, card: BundleCard, device: torch.device) -> None:
        shape = (1, -1, 1, 1)
        given = card.input
        self._mean = (torch.tensor(given.mean) * given.value_scale).view(shape).to(device)
        self._scale = (1 / (torch.tensor(given.std) * given.value_scale)).view(shape).to(device)

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        normalised: Tensor = (pixels_NHWC.movedim(-1, 1).float() - self._mean) * self._scale
        return normalised

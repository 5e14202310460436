"""Policies in training: weights of the D patches with the gradients that reach F_theta (torch).

All functions take log-probabilities (N, D), one row a patch, as `FoveationModule` gives with `log_probabilities`; so no
gradient divides by a tiny probability. Those with `logs` also take the probabilities themselves, where gradients are
wanted there; one that is 0 is as good as any other. Letters: N patches, D fields of view, C bands, H W pixels.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "categorical_weights",
    "gumbel_noise",
    "gumbel_weights",
    "mean_weights",
    "mix",
    "mode_weights",
]


def mix(patches_NDCHW: Tensor, weights_ND: Tensor) -> Tensor:
    """The weighted sum of every patch's D fields of view: what the segmentation network sees, (N, C, H, W)."""
    return torch.einsum("nd,ndchw->nchw", weights_ND, patches_NDCHW)


def mean_weights(values_ND: Tensor, *, logs: bool = True) -> Tensor:
    """The probabilities themselves (equation 2 of the paper)."""
    return values_ND.exp() if logs else values_ND


def mode_weights(values_ND: Tensor, gradient: Literal["st", "st_inv"] = "st", *, logs: bool = True) -> Tensor:
    """One-hot at the most likely field of view, the lowest on a tie (equation 3).

    "st" copies the gradient at the one-hot vector to the probabilities f; "st_inv" also divides it by f, as the
    authors' code does, but for an f that is 0, which gets none.
    """
    f_ND = values_ND.exp() if logs else values_ND
    through = f_ND
    if gradient == "st_inv":
        through = values_ND if logs else f_ND.clamp_min(torch.finfo(f_ND.dtype).tiny).log()
    return _one_hot(f_ND) + (through - through.detach())


def gumbel_weights(log_f_ND: Tensor, *, tau: float, noise_ND: Tensor, hard: bool = False) -> Tensor:
    """softmax((log f + noise) / tau); `hard`: its one-hot maximum, with the gradient of the soft weights."""
    soft_ND = functional.softmax((log_f_ND + noise_ND) / tau, dim=1)
    return _one_hot(soft_ND) + (soft_ND - soft_ND.detach()) if hard else soft_ND


def gumbel_noise(log_f_ND: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise of the same shape: -log of an exponential variate."""
    return -torch.empty_like(log_f_ND).exponential_(generator=generator).log()


def categorical_weights(values_ND: Tensor, index_N: Tensor, *, logs: bool = True) -> tuple[Tensor, Tensor]:
    """One-hot at the drawn `index_N` (int64), without gradient, and the log-probability (N,) of each draw, with one.

    The probabilities are normalised once more, so that the gradient is that of a distribution whatever rounding did.
    """
    one_hot_ND = functional.one_hot(index_N, values_ND.shape[1]).to(values_ND.dtype)
    if logs:
        return one_hot_ND, values_ND.log_softmax(dim=1).gather(1, index_N[:, None])[:, 0]
    return one_hot_ND, (values_ND.gather(1, index_N[:, None])[:, 0] / values_ND.sum(dim=1)).log()


def _one_hot(values_ND: Tensor) -> Tensor:
    return functional.one_hot(values_ND.argmax(dim=1), values_ND.shape[1]).to(values_ND.dtype)

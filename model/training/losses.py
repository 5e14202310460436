"""What training minimises. Letters: N patches, K classes, D fields of view, P patch side."""

import torch
from torch import Tensor
from torch.nn import functional

from model.datasets.patches import IGNORE

__all__ = ["class_weights", "expected_loss", "segmentation_loss", "window_losses"]

_LEAST = 1e-6
"""Probabilities count as at least this much, so that no single pixel decides about a window."""


def class_weights(shares: list[float], power: float) -> Tensor:
    """(K,) float32: (1 / share)^power, scaled so that the mean over pixels is 1; a class never seen weighs 0."""
    share = torch.tensor(shares, dtype=torch.float64)
    raw = torch.where(share > 0, share.clamp_min(1e-12) ** -power, torch.zeros_like(share))
    return (raw / (raw * share).sum()).float()


def segmentation_loss(logits_NKPP: Tensor, labels_NPP: Tensor, weights_K: Tensor) -> Tensor:
    """Weighted cross-entropy, mean over labelled pixels (not over their weights); 0 where nothing is labelled."""
    total = functional.cross_entropy(logits_NKPP, labels_NPP, weights_K, ignore_index=IGNORE, reduction="sum")
    return total / (labels_NPP != IGNORE).sum().clamp_min(1)


def window_losses(scores_NKPP: Tensor, labels_NPP: Tensor, weights_K: Tensor) -> tuple[Tensor, Tensor]:
    """Each window's own weighted cross-entropy (N,), from probabilities, and its labelled share (N,)."""
    labelled = (labels_NPP != IGNORE).flatten(1).sum(1)
    logs = scores_NKPP.clamp_min(_LEAST).log()
    pixels = functional.nll_loss(logs, labels_NPP, weights_K, ignore_index=IGNORE, reduction="none")
    return pixels.flatten(1).sum(1) / labelled.clamp_min(1), labelled / labels_NPP[0].numel()


def expected_loss(distribution_ND: Tensor, losses_ND: Tensor, importance_N: Tensor) -> Tensor:
    """Mean over locations of sum_d f_d L_d.

    The loss to expect when each location draws its field of view d with probability f_d. Its gradient with respect to f
    is exact: no relaxation and no sampling, since every L_d has been measured.
    """
    return (importance_N * (distribution_ND * losses_ND).sum(dim=1)).sum() / importance_N.sum()

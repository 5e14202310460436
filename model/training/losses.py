"""What training minimises. Letters: N patches, K classes, D fields of view, H W samples of the network's output."""

import torch
from torch import Tensor
from torch.nn import functional

from model.datasets.classes import IGNORE

__all__ = ["at_stride", "class_weights", "dice_loss", "expected_loss", "patch_losses", "window_losses"]

_LEAST = 1e-6
"""Probabilities count as at least this much, so that no single pixel decides about a window."""


def class_weights(shares: list[float], power: float) -> Tensor:
    """(K,) float32: (1 / share)^power, scaled so that the mean over pixels is 1; a class never seen weighs 0."""
    share = torch.tensor(shares, dtype=torch.float64)
    raw = torch.where(share > 0, share.clamp_min(1e-12) ** -power, torch.zeros_like(share))
    return (raw / (raw * share).sum()).float()


def at_stride(labels_NHW: Tensor, stride: int) -> Tensor:
    """Labels for logits at `stride`: nearest neighbour, which takes index `stride` k + `stride` // 2 (section 9)."""
    rows, columns = (side // stride * stride for side in labels_NHW.shape[-2:])
    return labels_NHW[..., stride // 2 : rows : stride, stride // 2 : columns : stride]


def patch_losses(log_p_NKHW: Tensor, labels_NHW: Tensor, weights_K: Tensor) -> tuple[Tensor, Tensor]:
    """Each patch's sum over its pixels of w_y times the negative log-likelihood (N,), and its labelled pixels (N,).

    The loss of a minibatch is the quotient of the two sums (section 8.4: not divided by the weights).
    """
    pixels = functional.nll_loss(log_p_NKHW, labels_NHW, weights_K, ignore_index=IGNORE, reduction="none")
    return pixels.flatten(1).sum(1), (labels_NHW != IGNORE).flatten(1).sum(1)


def dice_loss(logits_NKHW: Tensor, labels_NHW: Tensor) -> Tensor:
    """1 - mean soft Dice over the classes that the labels show, all patches pooled; ignored pixels left out."""
    K = logits_NKHW.shape[1]
    labelled_NHW = labels_NHW != IGNORE
    scores = logits_NKHW.softmax(dim=1) * labelled_NHW[:, None]
    truth = functional.one_hot(labels_NHW.where(labelled_NHW, 0), K).movedim(-1, 1) * labelled_NHW[:, None]
    both_K, truth_K = ((values).sum(dim=(0, 2, 3)) for values in (scores * truth, truth))
    # One pixel is added to both sides: a class of a few pixels would else jump between 0 and 1.
    dice_K = (2 * both_K + 1) / (scores.sum(dim=(0, 2, 3)) + truth_K + 1)
    shown_K = truth_K > 0
    return 1 - (dice_K * shown_K).sum() / shown_K.sum() if bool(shown_K.any()) else 0 * logits_NKHW.sum()


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

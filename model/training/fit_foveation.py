"""Training F_theta by itself: minimise the cost to expect, given what each field of view costs at each place.

The network is frozen, so the cost L_d of every field of view d can be measured once, and the expected cost
sum_d f_d L_d has an exact gradient.
"""

import logging

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from model.foveation import FoveationModule
from model.metrics import ClassCounts, mean_iou_slope
from model.training.config import FoveationSchedule, Staged, TrainConfig
from model.training.losses import expected_loss
from model.training.measure import REACH, Measured, check_places

__all__ = ["best_alone", "fit_foveation", "foveation_summary", "log_probabilities", "quality"]

log = logging.getLogger(__name__)

_BATCH = 256


def fit_foveation(measured: Measured, config: TrainConfig) -> FoveationModule:
    """F_theta, from scratch, minimising the mean over locations of the expected cost; evaluation mode, on the CPU."""
    card = config.bundle
    assert card.foveation is not None and isinstance(config.training, Staged)
    schedule: FoveationSchedule | None = config.training.foveation
    assert schedule is not None  # checked by the recipe
    check_places(len(measured.losses))
    costs, importance = _costs(measured, schedule)
    torch.manual_seed(config.seed + 1)
    module = FoveationModule.from_card(card.foveation, card.network.in_channels, len(card.fovs))
    optimiser = AdamW(module.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, schedule.steps)
    for step in range(schedule.steps):
        chosen = torch.randint(len(measured.losses), (min(_BATCH, len(measured.losses)),))
        distribution = module(measured.glimpses[chosen], measured.inside[chosen])[:, :, REACH, REACH]
        loss = expected_loss(distribution, costs[chosen], importance[chosen])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        falling.step()
        if (step + 1) % max(1, schedule.steps // 5) == 0:
            log.info("F_theta: step %d of %d, expected cost %.4f", step + 1, schedule.steps, loss.item())
    return module.eval()


def _costs(measured: Measured, schedule: FoveationSchedule) -> tuple[Tensor, Tensor]:
    """(N, D) what each field of view costs at each place, and (N,) what the place weighs.

    The mean IoU is a ratio of sums over all places. To first order around the predictions of the best single field of
    view it is a sum over places, of which each gets its own part, in points.
    """
    if schedule.objective == "cross_entropy":
        return measured.losses, measured.labelled
    best_KK = measured.confusions[:, best_alone(measured, schedule)].sum(dim=0)
    slope_KK = torch.from_numpy(mean_iou_slope(best_KK.numpy())).float()
    points_ND = 100 * len(measured.losses) * (measured.confusions * slope_KK).sum(dim=(2, 3))
    return -points_ND, torch.ones(len(points_ND))


def best_alone(measured: Measured, schedule: FoveationSchedule) -> int:
    """The field of view that serves all places best, from 0."""
    N, D = measured.losses.shape
    return max(range(D), key=lambda d: quality(measured, torch.full((N,), d), schedule))


def quality(measured: Measured, chosen_N: Tensor, schedule: FoveationSchedule) -> float:
    """What the schedule's objective says of these fields of view: the mean IoU over all places, or the mean loss with
    its sign changed."""
    if schedule.objective == "mean_iou":
        return _mean_iou(measured.confusions[torch.arange(len(chosen_N)), chosen_N])
    picked_N = measured.losses.gather(1, chosen_N[:, None])[:, 0]
    return -float((picked_N * measured.labelled).sum() / measured.labelled.sum())


@torch.inference_mode()
def log_probabilities(module: FoveationModule, measured: Measured) -> Tensor:
    """(N, D) what F_theta says of each place."""
    told_ND: Tensor = module(measured.glimpses, measured.inside)[:, :, REACH, REACH].log()
    return told_ND


@torch.inference_mode()
def foveation_summary(module: FoveationModule, measured: Measured) -> dict[str, list[float] | float]:
    """On the measured places: mean loss of each fixed field of view, of F_theta's choice and of the best choice; and
    the mean IoU of each fixed field of view and of F_theta's choice."""
    weight = measured.labelled / measured.labelled.sum()
    chosen = log_probabilities(module, measured).argmax(dim=1)
    picked = measured.losses.gather(1, chosen[:, None])[:, 0]
    taken = measured.confusions[torch.arange(len(chosen)), chosen]
    counts = torch.bincount(chosen, minlength=measured.losses.shape[1])
    return {
        "fixed": [round(float(v), 4) for v in weight @ measured.losses],
        "mode": round(float(weight @ picked), 4),
        "oracle": round(float(weight @ measured.losses.min(dim=1).values), 4),
        "fixed_miou": [round(_mean_iou(confusions), 4) for confusions in measured.confusions.unbind(dim=1)],
        "mode_miou": round(_mean_iou(taken), 4),
        "chosen_share": [round(float(v), 4) for v in counts / counts.sum()],
    }


def _mean_iou(confusions_NKK: Tensor) -> float:
    pooled: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = confusions_NKK.sum(dim=0).numpy()
    return ClassCounts.of_confusion(pooled).mean_iou()

"""Training F_theta by itself: minimise the loss to expect, given what each field of view costs at each place.

The network is frozen, so the loss L_d of every field of view d can be measured once, and the expected loss
sum_d f_d L_d has an exact gradient.
"""

import logging

import torch
from torch.optim import AdamW

from foveate.errors import OptionInvalid
from model.foveation import FoveationModule
from model.training.config import FoveationSchedule, Staged, TrainConfig
from model.training.losses import expected_loss
from model.training.measure import REACH, Measured

__all__ = ["fit_foveation", "foveation_summary"]

log = logging.getLogger(__name__)

_BATCH = 256


def fit_foveation(measured: Measured, config: TrainConfig) -> FoveationModule:
    """F_theta, from scratch, minimising the mean over locations of the expected loss; evaluation mode, on the CPU."""
    card = config.bundle
    assert card.foveation is not None and isinstance(config.training, Staged)
    schedule: FoveationSchedule | None = config.training.foveation
    assert schedule is not None  # checked by the recipe
    if not len(measured.losses):
        raise OptionInvalid(
            "nothing is held out of the training images, so F_theta has nothing to learn from",
            hint="Set data.holdout, or leave F_theta out: foveation null in bundle and training.",
        )
    torch.manual_seed(config.seed + 1)
    module = FoveationModule.from_card(card.foveation, card.network.in_channels, len(card.fovs))
    optimiser = AdamW(module.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, schedule.steps)
    for step in range(schedule.steps):
        chosen = torch.randint(len(measured.losses), (min(_BATCH, len(measured.losses)),))
        distribution = module(measured.glimpses[chosen], measured.inside[chosen])[:, :, REACH, REACH]
        loss = expected_loss(distribution, measured.losses[chosen], measured.labelled[chosen])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        falling.step()
        if (step + 1) % max(1, schedule.steps // 5) == 0:
            log.info("F_theta: step %d of %d, expected loss %.4f", step + 1, schedule.steps, loss.item())
    return module.eval()


@torch.inference_mode()
def foveation_summary(module: FoveationModule, measured: Measured) -> dict[str, list[float] | float]:
    """On the measured places: mean loss of each fixed field of view, of F_theta's choice and of the best choice."""
    weight = measured.labelled / measured.labelled.sum()
    chosen = module(measured.glimpses, measured.inside)[:, :, REACH, REACH].argmax(dim=1)
    picked = measured.losses.gather(1, chosen[:, None])[:, 0]
    counts = torch.bincount(chosen, minlength=measured.losses.shape[1])
    return {
        "fixed": [round(float(v), 4) for v in weight @ measured.losses],
        "mode": round(float(weight @ picked), 4),
        "oracle": round(float(weight @ measured.losses.min(dim=1).values), 4),
        "chosen_share": [round(float(v), 4) for v in counts / counts.sum()],
    }

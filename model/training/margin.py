"""How much surer F_theta has to be to choose another field of view than the one that is best by itself.

F_theta learns from few images, and what it finds there need not hold on others. A margin on the logit of the best
single field of view is the caution that this calls for; images that F_theta was trained without tell how much.
"""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from foveate.errors import OptionInvalid
from model.foveation import FoveationModule
from model.training.config import FoveationSchedule, Staged, TrainConfig
from model.training.fit_foveation import best_alone, fit_foveation, log_probabilities, quality
from model.training.measure import Measured

__all__ = ["MARGINS", "choose", "favour", "parts_left_out", "told_without"]

log = logging.getLogger(__name__)

MARGINS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
"""Those that are tried. At 4 F_theta has to be exp(4), 55 times, surer; more would leave it no choice at all, which a
fixed field of view says more plainly."""
_PARTS = 8
"""Images are left out one by one, or in this many parts where there are more."""


def favour(module: FoveationModule, measured: Measured, config: TrainConfig) -> dict[str, float | dict[str, float]]:
    """Give the best single field of view the recipe's margin, in the module's last bias; and say what was given.

    With a margin that is cross-validated, `left_out` has what every margin tried came to on images left out.
    """
    schedule = _schedule(config)
    best = best_alone(measured, schedule)
    found: dict[str, float | dict[str, float]] = {}
    if schedule.margin == "cross_validated":
        log_p_ND = told_without(measured, config)
        worth = {m: quality(measured, choose(log_p_ND, best, m), schedule) for m in MARGINS}
        margin = max(worth, key=worth.__getitem__)  # the first, so the least, of equals
        found["left_out"] = {f"{m:g}": round(value, 4) for m, value in worth.items()}
    else:
        margin = schedule.margin
    with torch.no_grad():
        module.norm3.get_parameter("bias")[best] += margin
    return {"margin": margin, **found}


def choose(log_p_ND: Tensor, best: int, margin: float) -> Tensor:
    """(N,) the fields of view that are chosen if `best` is given a margin."""
    raised_ND = log_p_ND.clone()
    raised_ND[:, best] += margin
    return raised_ND.argmax(dim=1)


def told_without(measured: Measured, config: TrainConfig) -> Tensor:
    """(N, D) log-probabilities of each place, by an F_theta that was trained without its image.

    OptionInvalid where all places lie in one image.
    """
    told_ND = torch.empty_like(measured.losses)
    for left_out_N in parts_left_out(measured):
        module = fit_foveation(measured.at(~left_out_N), config)
        told_ND[left_out_N] = log_probabilities(module, measured.at(left_out_N))
    return told_ND


def parts_left_out(measured: Measured) -> Iterator[Tensor]:
    """(N,) bool masks of the places to leave out, whole images each; every place is in one of them."""
    images = torch.unique(measured.images)
    if len(images) < 2:
        raise OptionInvalid(
            "training.foveation.margin cannot be cross-validated: what is held out lies in a single image",
            hint="Hold out parts of more images (data.holdout), or give the margin as a number.",
        )
    for part in range(min(_PARTS, len(images))):
        log.info("F_theta without part %d of %d", part + 1, min(_PARTS, len(images)))
        yield torch.isin(measured.images, images[part::_PARTS])


def _schedule(config: TrainConfig) -> FoveationSchedule:
    assert isinstance(config.training, Staged) and config.training.foveation is not None  # checked by the recipe
    return config.training.foveation

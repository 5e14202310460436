"""A run of staged training: the network first, then F_theta on what each field of view really costs."""

from typing import Any

import torch
from torch import nn

from foveate.errors import OptionInvalid
from model.networks.build import input_channels
from model.training.begin import fresh_network, loss_weights, survey
from model.training.config import Staged, TrainConfig
from model.training.devices import Place, synchronised
from model.training.fit_foveation import fit_foveation, foveation_summary
from model.training.joint import output_stride
from model.training.loop import Updates, fit
from model.training.margin import favour
from model.training.measure import HeldOut, check_places, measure
from model.training.patches import PatchSamples, gather_patches
from model.training.staged import StagedLearner

__all__ = ["fit_staged"]


def fit_staged(config: TrainConfig, place: Place) -> tuple[nn.ModuleDict, dict[str, Any]]:
    """The trained "network" and, where the recipe has one, "foveation", with facts about it for the card.

    Goes on where it stopped. The first process alone trains F_theta: it takes seconds once the losses are measured.
    """
    staged, card = config.training, config.bundle
    assert isinstance(staged, Staged)
    schedule = staged.network
    if schedule.batch % place.world:
        raise OptionInvalid(
            f"training.network.batch {schedule.batch} cannot be shared out among {place.world} processes",
            hint="Choose a multiple of the number of processes.",
        )
    found = survey(config)
    if staged.foveation is not None:
        check_places(len(HeldOut(found, config).keys))  # before the training, not after it
    torch.manual_seed(config.seed)
    network = fresh_network(config, schedule.encoder_weights)
    stride = output_stride(network, input_channels(card.network), card.patch_size)
    nets = nn.ModuleDict({"network": synchronised(network, place)})
    weights = loss_weights(schedule.loss, found.shares)
    samples = PatchSamples(found.pairs, found.learnable, config)
    updates = Updates("network", schedule.steps, schedule.batch, samples, gather_patches)
    fit(StagedLearner(nets, card, schedule, weights, place, stride), updates, config, place)
    if staged.foveation is None or place.rank != 0:
        return nets, {}
    measured = measure(nets["network"], found, config, weights, place)
    foveation = fit_foveation(measured, config)
    nets["foveation"] = foveation
    margin = favour(foveation, measured, config)
    return nets, {"foveation_training": foveation_summary(foveation, measured) | margin}

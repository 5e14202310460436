"""A run of joint training: from a recipe to trained nets."""

import torch
from torch import nn

from foveate.errors import OptionInvalid
from model.foveation import FoveationModule
from model.inputs import Normalise
from model.networks.build import input_channels
from model.training.begin import fresh_network, loss_weights, survey
from model.training.config import Joint, TrainConfig
from model.training.devices import Place, synchronised
from model.training.images import OpenImages
from model.training.joint import JointLearner, output_stride
from model.training.loop import Pictures, Updates, fit, no_pictures
from model.training.maps import MapPictures
from model.training.samples import JointSamples, gather

__all__ = ["fit_joint"]

_PICTURED = 4
"""Training images whose foveation maps are drawn."""


def fit_joint(config: TrainConfig, place: Place) -> nn.ModuleDict:
    """The trained "network", and "foveation" if the policy trains one, on the place's device.

    Goes on where it stopped.
    """
    joint, card = config.training, config.bundle
    assert isinstance(joint, Joint)
    if joint.images % place.world:
        raise OptionInvalid(
            f"training.images {joint.images} cannot be shared out among {place.world} processes",
            hint="Choose a multiple of the number of processes.",
        )
    found = survey(config)
    samples = JointSamples(found.pairs, found.sizes, config)
    torch.manual_seed(config.seed)
    network = fresh_network(config, joint.encoder_weights)
    nets = nn.ModuleDict({"network": network})
    if card.foveation is not None:
        nets["foveation"] = FoveationModule.from_card(card.foveation, card.network.in_channels, len(card.fovs))
    stride = output_stride(network, input_channels(card.network), card.patch_size)
    nets = nn.ModuleDict({name: synchronised(net, place) for name, net in nets.items()})
    learner = JointLearner(nets, card, joint, loss_weights(joint.loss, found.shares), place, stride)
    updates = Updates(f"{config.run.parent.name}/{config.run.name}", joint.steps, joint.images, samples, gather)
    pictures: Pictures = no_pictures
    if joint.map_every and place.rank == 0 and card.foveation is not None:
        shown = OpenImages(found.pairs[:_PICTURED], config)
        normalise = Normalise(card, place.device)
        pictures = MapPictures(
            nets["foveation"], shown, samples.grids[:_PICTURED], normalise, config.run / "maps", joint.map_every, place
        )
    fit(learner, updates, config, place, pictures)
    return nets

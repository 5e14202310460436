"""A run of joint training: from a recipe to trained nets."""

import torch
from torch import Tensor, nn

from foveate.errors import OptionInvalid
from model.datasets.labelled import class_shares
from model.datasets.layouts import find_pairs
from model.datasets.pair import Pair
from model.foveation import FoveationModule
from model.networks.build import build_network, input_channels
from model.networks.weights import load_encoder_weights
from model.training.config import Joint, Loss, TrainConfig
from model.training.devices import Place, synchronised
from model.training.images import OpenImages
from model.training.joint import JointLearner, output_stride
from model.training.loop import Plan, fit
from model.training.losses import class_weights
from model.training.maps import MapPictures
from model.training.normalise import Normalise
from model.training.samples import JointSamples, gather
from raster.geometry import Size

__all__ = ["fit_joint", "fresh_network", "loss_weights"]

_PICTURED = 4
"""Training images whose foveation maps are drawn."""


def fit_joint(config: TrainConfig, place: Place) -> nn.ModuleDict:
    """The trained "network", and "foveation" if the policy trains one, on `place`'s device; goes on where it stopped."""
    joint, card = config.training, config.bundle
    assert isinstance(joint, Joint)
    if joint.images % place.world:
        raise OptionInvalid(
            f"training.images {joint.images} cannot be shared out among {place.world} processes",
            hint="Choose a multiple of the number of processes.",
        )
    pairs = find_pairs(config.data, "train")
    sizes, shares = survey(config, pairs)
    samples = JointSamples(pairs, sizes, config)
    torch.manual_seed(config.seed)
    network = fresh_network(config, joint.encoder_weights)
    nets = nn.ModuleDict({"network": network})
    if card.foveation is not None:
        nets["foveation"] = FoveationModule.from_card(card.foveation, card.network.in_channels, len(card.fovs))
    stride = output_stride(network, input_channels(card.network), card.patch_size)
    nets = nn.ModuleDict({name: synchronised(net, place) for name, net in nets.items()})
    learner = JointLearner(nets, card, joint, loss_weights(joint.loss, shares), place, stride)
    plan = Plan(f"{config.run.parent.name}/{config.run.name}", joint.steps, joint.images, samples, gather)
    if joint.map_every and place.rank == 0 and card.foveation is not None:
        shown = OpenImages(pairs[:_PICTURED], config)
        normalise = Normalise(card, place.device)
        maps = MapPictures(
            nets["foveation"], shown, samples.grids[:_PICTURED], normalise, config.run / "maps", joint.map_every, place
        )
        fit(learner, plan, config, place, maps)
    else:
        fit(learner, plan, config, place)
    return nets


def survey(config: TrainConfig, pairs: list[Pair]) -> tuple[list[Size], list[float]]:
    """Every image's size in working pixels, and the classes' shares of what is to be learnt."""
    images = OpenImages(pairs, config)
    try:
        sizes = [images[k].size for k in range(len(pairs))]
        shares = class_shares((images[k] for k in range(len(pairs))), len(config.bundle.classes))
    finally:
        images.close()
    return sizes, shares


def fresh_network(config: TrainConfig, encoder_weights: str | None) -> nn.Module:
    """The card's network with random weights, its encoder's read where the recipe says so."""
    network = build_network(config.bundle.network, len(config.bundle.classes))
    if encoder_weights is not None:
        load_encoder_weights(network, encoder_weights)
    return network


def loss_weights(loss: Loss, shares: list[float]) -> Tensor:
    """(K,) float32: what a pixel of each class weighs; OptionInvalid where the recipe's list is of another length."""
    if loss.class_weights is not None:
        if len(loss.class_weights) != len(shares):
            raise OptionInvalid(
                f"loss.class_weights has {len(loss.class_weights)} weights for {len(shares)} classes",
                hint="Give one weight for each class of the bundle, in its order.",
            )
        return torch.tensor(loss.class_weights)
    return class_weights(shares, loss.class_weight_power or 0.0)

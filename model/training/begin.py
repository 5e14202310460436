"""What both methods begin with: a look at the training images, a fresh network, the weights of the classes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.errors import OptionInvalid
from model.datasets.labelled import LabelledImage, class_shares
from model.datasets.layouts import find_pairs
from model.datasets.pair import Pair
from model.networks.build import build_network
from model.networks.weights import load_encoder_weights
from model.training.config import Loss, TrainConfig
from model.training.images import OpenImages
from model.training.losses import class_weights
from raster.geometry import Region, Size

__all__ = ["Survey", "fresh_network", "loss_weights", "survey"]


@dataclass(frozen=True)
class Survey:
    """The training images in the data set's order."""

    pairs: list[Pair]
    sizes: list[Size]
    """In working pixels."""
    held: list[Region]
    """What the network must not learn from."""
    learnable: list[int]
    """Working pixels of each image that have a class, estimated."""
    shares: list[float]
    """Of each class in all of them."""


def survey(config: TrainConfig) -> Survey:
    """Open every training image once; errors name what is missing or malformed."""
    pairs, K = find_pairs(config.data, "train"), len(config.bundle.classes)
    images = OpenImages(pairs, config)
    sizes, held, learnable = [], [], []

    def noted() -> Iterator[LabelledImage]:
        for k in range(len(pairs)):
            sizes.append(images[k].size)
            held.append(images[k].held)
            learnable.append(int(images[k].class_counts(K).sum()))
            yield images[k]

    try:
        shares = class_shares(noted(), K)
    finally:
        images.close()
    return Survey(pairs, sizes, held, learnable, shares)


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

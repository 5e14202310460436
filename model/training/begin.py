"""What both methods begin with: a look at the training images, a fresh network, the weights of the classes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.errors import OptionInvalid
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
    """The training images: sizes in working pixels, and how much there is to learn."""

    pairs: list[Pair]
    sizes: list[Size]
    held: list[Region]
    counts: NDArray[np.int64]
    """(images, K) learnable pixels of each class, estimated."""
    shares: list[float]
    """Of each class in all of them."""


def survey(config: TrainConfig) -> Survey:
    """Open every training image once; errors name what is missing or malformed."""
    pairs = find_pairs(config.data, "train")
    images = OpenImages(pairs, config)
    sizes, held, counts = [], [], []
    try:
        for k in range(len(pairs)):
            image = images[k]
            sizes.append(image.size)
            held.append(image.held)
            counts.append(image.class_counts(len(config.bundle.classes)))
    finally:
        images.close()
    table = np.array(counts)
    if not table.any():
        raise OptionInvalid("no pixel of the training images has a class", hint="Check data.labels and the holdout.")
    return Survey(pairs, sizes, held, table, [float(share) for share in table.sum(axis=0) / table.sum()])


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

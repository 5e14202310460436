"""From a recipe to a bundle: fit the network, fit F_theta, write the bundle, score what was written."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import OptionInvalid
from foveate.schema import BundleCard
from model.bundle import Bundle, save_bundle
from model.datasets.patches import Labelled, PatchSampler, class_shares, load_images
from model.evaluation.evaluate import evaluate, report
from model.foveation import FoveationModule
from model.networks.build import build_network
from model.networks.weights import load_encoder_weights
from model.predictor import Predictor
from model.training.config import TrainConfig, read_config
from model.training.fit import Checkpoints, fit_network
from model.training.fit_foveation import fit_foveation, foveation_summary, measure
from model.training.losses import class_weights
from model.training.readme import with_scores

__all__ = ["Trained", "train"]

log = logging.getLogger(__name__)

_OVERLAP = 0.25
"""At which the scores are taken: the default of `foveate segment`."""


@dataclass(frozen=True)
class Trained:
    """The bundle that was written, and its scores as in `provenance`."""

    bundle: Bundle
    scores: dict[str, Any]


def train(path: Path) -> Trained:
    """Follow the recipe in `path` and write its bundle; goes on from the checkpoints in its `run` directory.

    Repeating the command after it has finished scores and writes the same weights again. Raises OptionInvalid for a
    recipe that is wrong, and image errors for data that are missing or cannot be read.
    """
    config, recipe = read_config(path), path.read_text()
    torch.set_num_threads(config.threads)
    images = load_images(config.data, config.data.train, config.data.holdout)
    _check_bands(images, config.bundle)
    shares = class_shares(images, len(config.bundle.classes))
    log.info("%d images; class shares %s", len(images), ", ".join(f"{share:.3f}" for share in shares))
    weights = class_weights(shares, config.network.class_weight_power)
    network = _fitted_network(config, images, weights)
    losses = measure(network, images, config, weights, Checkpoints(config.run / "losses.pt", config.checkpoint_minutes))
    foveation = fit_foveation(losses, config)
    summary = foveation_summary(foveation, losses)
    log.info("F_theta on the places it was trained on: %s", summary)
    return _written(path, recipe, config, network, foveation, {"foveation_training": summary})


def _fitted_network(config: TrainConfig, images: list[Labelled], weights_K: Tensor) -> nn.Module:
    torch.manual_seed(config.seed)
    network = build_network(config.bundle.network, len(config.bundle.classes))
    if config.network.encoder_weights is not None:
        load_encoder_weights(network, config.network.encoder_weights)
    network = network.to(memory_format=torch.channels_last)
    sampler = PatchSampler(images, config.bundle, config.network, config.augmentation, config.seed)
    fit_network(network, sampler, weights_K, Checkpoints(config.run / "network.pt", config.checkpoint_minutes))
    return network


def _written(
    path: Path,
    recipe: str,
    config: TrainConfig,
    network: nn.Module,
    foveation: FoveationModule,
    facts: dict[str, Any],
) -> Trained:
    """Save the bundle, score it as saved (half precision and all), and save it again with its scores."""
    readme = config.output / "README.md"
    text = readme.read_text() if readme.exists() else None
    network_state, foveation_state = network.state_dict(), foveation.state_dict()
    # The draft has a place of its own, so that a bundle in use is replaced in one go.
    draft = save_bundle(
        config.run / "draft", config.bundle, network_state, foveation_state, readme=text or "", training_yaml=recipe
    )
    policies = ["mode", *(f"fixed:{k + 1}" for k in range(len(config.bundle.fovs)))]
    held_out = load_images(config.data, config.data.test, None)
    scores = evaluate(Predictor(draft, torch.device("cpu")), held_out, policies, _OVERLAP)
    found = {"overlap": _OVERLAP, "policies": report(scores, config.bundle), **facts}
    provenance = {
        **config.bundle.provenance,
        "scores": found,
        "command": f"foveate train {path}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    card = config.bundle.model_copy(update={"provenance": provenance})
    readme_text = with_scores(text, card, found["policies"])
    bundle = save_bundle(config.output, card, network_state, foveation_state, readme=readme_text, training_yaml=recipe)
    return Trained(bundle, found)


def _check_bands(images: list[Labelled], card: BundleCard) -> None:
    for image in images:
        if image.pixels.shape[2] != len(card.input.bands):
            raise OptionInvalid(
                f"{image.name} has {image.pixels.shape[2]} bands, the bundle wants {card.input.bands}",
                hint="Mend bundle.input.bands or choose other images.",
            )

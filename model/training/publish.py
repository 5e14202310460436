"""A finished run's bundle, put where it is shipped from, with its scores on the test images."""

from pathlib import Path

import torch

from foveate.card import README_FILE, TRAINING_FILE
from model.bundle import Bundle, load_networks, save_bundle
from model.datasets.layouts import find_pairs
from model.evaluation.scores import score_bundle
from model.predictor import Predictor
from model.training.config import TrainConfig
from model.training.readme import with_scores

__all__ = ["publish"]

_OVERLAP = 0.25
"""At which the scores are taken: the default of `foveate segment`."""


def publish(bundle: Bundle, config: TrainConfig, output: Path) -> None:
    """Score `bundle` as it was saved (half precision and all), and write it into `output` with its scores.

    What is written by hand in `output`'s README stays.
    """
    policies = list(dict.fromkeys([bundle.card.policy, *_fixed(config)]))
    predictor = Predictor(bundle, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    pairs = find_pairs(config.data, "test")
    scores = score_bundle(predictor, pairs, config.data, policies, overlap=_OVERLAP)
    provenance = {**bundle.card.provenance, "scores": {"overlap": _OVERLAP, "policies": scores}}
    card = bundle.card.model_copy(update={"provenance": provenance})
    readme = output / README_FILE
    text = with_scores(readme.read_text() if readme.exists() else None, card, scores)
    network, foveation = load_networks(bundle)
    save_bundle(
        output,
        card,
        network.state_dict(),
        None if foveation is None else foveation.state_dict(),
        readme=text,
        training_yaml=(bundle.directory / TRAINING_FILE).read_text(),
    )


def _fixed(config: TrainConfig) -> list[str]:
    """Every fixed field of view, if the network learned to read all of them."""
    if config.training.method == "joint":
        return []
    return [f"fixed:{k + 1}" for k in range(len(config.bundle.fovs))]

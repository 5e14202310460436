"""A finished run's bundle, put where it is shipped from, with its scores on the test images."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foveate.card import CARD_FILE, README_FILE, TRAINING_FILE, WEIGHTS_FILE
from foveate.errors import OptionInvalid
from foveate.schema import CoverageCard
from model.bundle import Bundle, load_bundle, load_networks, save_bundle
from model.datasets.layouts import find_pairs
from model.evaluation.curve import curve_card
from model.evaluation.scores import score_bundle
from model.predictor import Predictor
from model.training.config import ScoresOfOthers, TrainConfig
from model.training.readme import with_scores

__all__ = ["is_published", "publish", "scores_of_others"]

_OVERLAP = 0.25
"""At which the scores are taken: the default of `foveate segment`."""
_ON_THE_CARD = {
    *("miou", "interval", "iou", "dice", "accuracy", "ece"),
    *("forwards", "patches_by_fov", "object_dice", "object_f1"),
}


def is_published(bundle: Bundle, config: TrainConfig, recipe: str, output: Path) -> bool:
    """Whether `output` holds this run's weights; and the scores and the recipe of now, where taking them again costs
    nothing because they come from other nets."""
    there, here = output / WEIGHTS_FILE, bundle.directory / WEIGHTS_FILE
    if not (output / CARD_FILE).exists() or not there.exists() or there.read_bytes() != here.read_bytes():
        return False
    if config.scores is None:
        return True
    card, written = load_bundle(output).card, output / TRAINING_FILE
    return (
        card.provenance.get("scores") == scores_of_others(config.scores)
        and card.coverage == coverage_of_others(config.scores)
        and written.exists()
        and written.read_text() == recipe
    )


def publish(bundle: Bundle, config: TrainConfig, recipe: str, output: Path, device: torch.device) -> None:
    """Write `bundle` into `output` with its `recipe`, as YAML, and its scores: its own as it was saved (half precision
    and all), or those that the recipe names, with the curve of adaptive coverage if they have one.

    Its own are taken on `device`, a GPU with its index. What is written by hand in `output`'s README stays.
    """
    scores = _own(bundle, config, device) if config.scores is None else scores_of_others(config.scores)
    coverage = bundle.card.coverage if config.scores is None else coverage_of_others(config.scores)
    provenance = {**bundle.card.provenance, "scores": scores}
    card = bundle.card.model_copy(update={"provenance": provenance, "coverage": coverage})
    readme = output / README_FILE
    text = with_scores(readme.read_text() if readme.exists() else None, card, scores["policies"])
    network, foveation = load_networks(bundle)
    save_bundle(
        output,
        card,
        network.state_dict(),
        None if foveation is None else foveation.state_dict(),
        readme=text,
        training_yaml=recipe,
    )


def _own(bundle: Bundle, config: TrainConfig, device: torch.device) -> dict[str, Any]:
    policies = list(dict.fromkeys([bundle.card.policy, *_fixed(config)]))
    predictor = Predictor(bundle, device)
    pairs = find_pairs(config.data, "test")
    return {
        "overlap": _OVERLAP,
        "policies": score_bundle(predictor, pairs, config.data, policies, overlap=_OVERLAP),
    }


def scores_of_others(scores: ScoresOfOthers) -> dict[str, Any]:
    """What an evaluation says of one model, by policy; OptionInvalid where it is not there or not complete."""
    found = _evaluation(scores)
    prefix = f"{scores.model} " if scores.model else ""
    policies = {
        name.removeprefix(prefix): {key: value for key, value in entry.items() if key in _ON_THE_CARD}
        for name, entry in found.models.items()
        if name.startswith(prefix)
    }
    missing = [run for run in found.missing if scores.model is None or run.endswith(f"/{scores.model}")]
    if not policies or missing:
        raise OptionInvalid(
            f"scores.model {scores.model}: {scores.evaluation} has not all of it",
            hint=f"Finish its runs and evaluate again; it has {', '.join(found.models)}.",
        )
    nets = "of the same recipe, each scored on images it never saw"
    return {"overlap": found.overlap, "nets": nets, "policies": policies}


def coverage_of_others(scores: ScoresOfOthers) -> CoverageCard:
    """The curve that the evaluation measured of the model; without one, dense coverage alone."""
    curves = _evaluation(scores).curves
    rows = curves.get(scores.model) if scores.model else next(iter(curves.values()), None)
    return curve_card(rows, scores.coverage) if rows else CoverageCard()


class _Evaluation(NamedTuple):
    """A `scores.json`; `curves` by model."""

    models: dict[str, dict[str, Any]]
    overlap: float
    missing: list[str]
    curves: dict[str, list[dict[str, Any]]]


def _evaluation(scores: ScoresOfOthers) -> _Evaluation:
    try:
        found = json.loads(scores.evaluation.read_text())
        return _Evaluation(found["models"], found["settings"]["overlap"], found["missing"], found.get("coverage", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionInvalid(
            f"scores.evaluation {scores.evaluation} holds no scores: {error}",
            hint="Run `foveate evaluate` on the experiment first, and name the scores.json in its output.",
        ) from error


def _fixed(config: TrainConfig) -> list[str]:
    """Every fixed field of view, if the network learned to read all of them."""
    if config.training.method == "joint":
        return []
    return [f"fixed:{k + 1}" for k in range(len(config.bundle.fovs))]

"""From recipes to bundles: every run of a file is trained, goes on where it stopped, or is finished already."""

import logging
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import nn

from foveate.errors import OptionInvalid
from model.bundle import Bundle, load_bundle, save_bundle
from model.experiment import Run, read_experiment
from model.heap import KEPT_IN_TRAINING, set_up_heap
from model.training.checkpoints import claimed_run
from model.training.config import Joint, TrainConfig
from model.training.devices import Place, placed
from model.training.fit_joint import fit_joint
from model.training.fit_staged import fit_staged
from model.training.publish import is_published, publish, scores_of_others
from model.training.readme import bare_card

__all__ = ["Trained", "train"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A finished run: its name as FOLD/MODEL, and the bundle."""

    name: str
    bundle: Bundle
    scores: dict[str, Any]
    """As in the card's provenance; empty where none were taken."""


def train(path: Path, only: list[str] | None = None) -> list[Trained]:
    """Train every run of the recipe or experiment in `path`, one after the other; finished ones are passed over.

    `only` names the runs that are meant, as FOLD, MODEL or FOLD/MODEL. Raises OptionInvalid for a recipe that is wrong,
    or a run that began with another one or that another process is training, and image errors for data that are missing
    or cannot be read.
    """
    experiment = read_experiment(path)
    runs = [run for run in experiment.runs if not only or any(_is_meant(run, name) for name in only)]
    for name in only or []:
        if not any(_is_meant(run, name) for run in runs):
            raise OptionInvalid(
                f"{path} has no run {name}",
                hint=f"Choose from {', '.join(f'{run.fold}/{run.model}' for run in experiment.runs)}.",
            )
    set_up_heap(KEPT_IN_TRAINING)
    with placed() as place:
        return [_trained(run, path, experiment.plain, place) for run in runs]


def _is_meant(run: Run, name: str) -> bool:
    return name in (run.fold, run.model, f"{run.fold}/{run.model}")


def _trained(run: Run, path: Path, plain: bool, place: Place) -> Trained:
    config, name = run.config, f"{run.fold}/{run.model}"
    if config.output is not None and config.scores is not None:
        scores_of_others(config.scores)  # before the training, not after it
    with claimed_run(config) if place.rank == 0 else nullcontext():
        return _bundle_of(config, name, path, plain, place)


def _bundle_of(config: TrainConfig, name: str, path: Path, plain: bool, place: Place) -> Trained:
    """What a run has come to, trained here unless it was finished before."""
    finished = config.run / "bundle"
    # A recipe travels as it was written, comments and all.
    recipe = path.read_text() if plain else _as_yaml(config)
    if finished.exists():
        log.info("%s: finished already", name)
    else:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if isinstance(config.training, Joint):
            nets, facts = fit_joint(config, place), dict[str, Any]()
        else:
            nets, facts = fit_staged(config, place)
        if place.rank == 0:
            _write(config, nets, {**facts, "command": f"foveate train {path}"}, recipe, finished)
        if place.world > 1:
            dist.barrier()
    bundle = load_bundle(finished)
    if config.output is None or place.rank != 0:
        return Trained(name, bundle, {})
    if not is_published(bundle, config, recipe, config.output):
        publish(bundle, config, recipe, config.output, place.device)
    published = load_bundle(config.output)
    return Trained(name, published, published.card.provenance["scores"])


def _as_yaml(config: TrainConfig) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _write(config: TrainConfig, nets: nn.ModuleDict, facts: dict[str, Any], recipe: str, finished: Path) -> None:
    """The run's bundle, in one go."""
    provenance = {**config.bundle.provenance, **facts, "date": datetime.now(UTC).date().isoformat()}
    card = config.bundle.model_copy(update={"provenance": provenance})
    draft = config.run / "bundle.partial"
    shutil.rmtree(draft, ignore_errors=True)
    foveation = nets["foveation"].state_dict() if "foveation" in nets else None
    save_bundle(draft, card, nets["network"].state_dict(), foveation, readme=bare_card(card), training_yaml=recipe)
    draft.rename(finished)

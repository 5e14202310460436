"""From recipes to bundles: every run of a file is trained, goes on where it stopped, or is finished already."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import Tensor, nn

from foveate.errors import OptionInvalid
from model.bundle import Bundle, load_bundle, save_bundle
from model.experiment import Run, read_experiment
from model.training.checkpoints import claim_run
from model.training.config import Joint, TrainConfig
from model.training.devices import Place, placed
from model.training.fit_joint import fit_joint

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

    `only` names the runs that are meant, as FOLD, MODEL or FOLD/MODEL. Raises OptionInvalid for a recipe that is wrong
    or a run that began with another one, and image errors for data that are missing or cannot be read.
    """
    experiment = read_experiment(path)
    runs = [run for run in experiment.runs if only is None or any(_is_meant(run, name) for name in only)]
    if not runs:
        raise OptionInvalid(
            f"{path} has no run {', '.join(only or [])}",
            hint=f"Choose from {', '.join(f'{run.fold}/{run.model}' for run in experiment.runs)}.",
        )
    with placed() as place:
        return [_trained(run, f"foveate train {path}", place) for run in runs]


def _is_meant(run: Run, name: str) -> bool:
    return name in (run.fold, run.model, f"{run.fold}/{run.model}")


def _trained(run: Run, command: str, place: Place) -> Trained:
    config, name = run.config, f"{run.fold}/{run.model}"
    claim_run(config)
    finished = config.run / "bundle"
    if finished.exists():
        log.info("%s: finished already", name)
    else:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        assert isinstance(config.training, Joint)
        nets = fit_joint(config, place)
        if place.rank == 0:
            _write(config, nets, command, finished)
        if place.world > 1:
            dist.barrier()
    return Trained(name, load_bundle(finished), {})


def _write(config: TrainConfig, nets: nn.ModuleDict, command: str, finished: Path) -> None:
    """The run's bundle, in one go."""
    provenance = {**config.bundle.provenance, "command": command, "date": datetime.now(UTC).date().isoformat()}
    card = config.bundle.model_copy(update={"provenance": provenance})
    recipe = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    draft = config.run / "bundle.partial"
    shutil.rmtree(draft, ignore_errors=True)
    foveation = nets["foveation"].state_dict() if "foveation" in nets else None
    save_bundle(draft, card, nets["network"].state_dict(), foveation, readme="", training_yaml=recipe)
    draft.rename(finished)

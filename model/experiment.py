"""An experiment: one recipe, varied by fold of the data and by model; `foveate train` trains it, `evaluate` scores it.

A plain recipe is an experiment of one model and one fold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from foveate.errors import OptionInvalid
from foveate.faults import faults_of
from foveate.schema import Wire
from model.evaluation.config import EvaluateConfig
from model.training.config import TrainConfig, parse_config, read_yaml

__all__ = ["Experiment", "Run", "read_experiment"]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class _ExperimentFile(Wire):
    name: Name
    recipe: dict[str, Any]
    """A training recipe without `run`: each run's directory is `runs`/FOLD/MODEL."""
    runs: Path
    folds: dict[Name, dict[str, Any]] = Field(default_factory=lambda: dict[str, dict[str, Any]](all={}))
    """Entries that replace those of the recipe, most often `data.train` and `data.test`."""
    models: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """Entries that replace those of the recipe, most often `training.policy`."""
    evaluate: EvaluateConfig = EvaluateConfig()


@dataclass(frozen=True)
class Run:
    """One network to train: a model on a fold."""

    fold: str
    model: str
    config: TrainConfig


@dataclass(frozen=True)
class Experiment:
    """Every run, model by model within each fold, and what is to be measured."""

    name: str
    runs: list[Run]
    evaluate: EvaluateConfig
    directory: Path
    """Below which all runs lie."""
    plain: bool = False
    """The file is one recipe, not an experiment."""

    @property
    def folds(self) -> list[str]:
        return list(dict.fromkeys(run.fold for run in self.runs))

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(run.model for run in self.runs))


def read_experiment(path: Path) -> Experiment:
    """The experiment in a YAML file, or the single run of a plain recipe; OptionInvalid names the wrong field.

    A file with `base` changes another experiment: its entries are laid over those of that file, and a model or a fold
    that is null there is left out.
    """
    entries = _laid_over_base(path, read_yaml(path))
    if not isinstance(entries, Mapping) or "recipe" not in entries:
        config = parse_config(entries, str(path))
        name = config.bundle.name
        return Experiment(name, [Run("all", name, config)], EvaluateConfig(), config.run, plain=True)
    try:
        file = _ExperimentFile.model_validate(entries)
    except ValidationError as error:
        raise OptionInvalid(
            f"{path}: {faults_of(error)}", hint="Mend the file; see examples/method/ for whole experiments."
        ) from error
    runs = [Run(fold, model, _varied(file, path, fold, model)) for fold in file.folds for model in file.models]
    return Experiment(file.name, runs, file.evaluate, file.runs)


def _laid_over_base(path: Path, entries: Any) -> Any:
    """The entries of a file; over those of the experiment beside it that its `base` names, if it names one."""
    if not isinstance(entries, Mapping) or "base" not in entries:
        return entries
    base = path.parent / str(entries["base"])
    below = read_yaml(base)
    if not isinstance(below, Mapping) or "recipe" not in below or "base" in below:
        raise OptionInvalid(
            f"{path}: base: {base} is no experiment with a recipe of its own",
            hint="Name one such as examples/method/dubai.yaml.",
        )
    merged = _merged(below, {key: value for key, value in entries.items() if key != "base"})
    for key in ("models", "folds"):
        if isinstance(merged.get(key), Mapping):
            merged[key] = {name: changes for name, changes in merged[key].items() if changes is not None}
    return merged


def _varied(file: _ExperimentFile, path: Path, fold: str, model: str) -> TrainConfig:
    entries = _merged(_merged(file.recipe, file.folds[fold]), file.models[model])
    entries["run"] = str(file.runs / fold / model)
    return parse_config(entries, f"{path} ({fold}/{model})")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping into mapping; lists and plain values are replaced as a whole."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = _merged(base[key], value) if nested else value
    return merged

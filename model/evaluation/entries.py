"""What is scored: networks with a policy each, and ensembles of them, from an experiment or from a list of bundles."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foveate.card import CARD_FILE, check_policy, read_card
from foveate.errors import OptionInvalid
from foveate.faults import faults_of
from foveate.schema import BundleCard
from model.datasets.config import Data
from model.evaluation.config import BundlesFile, EvaluateConfig
from model.evaluation.predict import GeometryName
from model.experiment import Experiment, Run, read_experiment
from model.policy import TAU_END
from model.training.config import LEARNING, Joint, read_yaml
from model.training.optimise import temperature

__all__ = ["Entry", "Part", "Scoring", "read_scoring"]


@dataclass(frozen=True)
class Part:
    """One network with the policy that it is scored by."""

    bundle: Path
    policy: str
    tau: float
    geometry: GeometryName


@dataclass(frozen=True)
class Entry:
    """One row of the tables, on one fold: a network with its policy, or an ensemble of several."""

    name: str
    fold: str
    parts: tuple[Part, ...]
    card: BundleCard
    """Of the first part; all parts have the same classes."""
    data: Data
    role: str
    """The policy as trained ("mean", "mode", "gumbel", "fixed:2", …), or "ensemble"."""
    family: str
    """Fixed networks of one family are each other's candidates for the gold standard."""
    maps: Path | None = None
    """Pictures of F_theta's maps that training has left, if any."""

    @property
    def geometry(self) -> GeometryName:
        return self.parts[0].geometry

    @property
    def is_fixed(self) -> bool:
        """Whether it is a candidate for the gold standard."""
        return self.role.startswith("fixed:")

    @property
    def rivals(self) -> tuple[str, str, tuple[int, ...]]:
        """What fixed networks, and the maps that are judged by them, have in common: fold, family and bank."""
        return self.fold, self.family, tuple(self.card.fovs)

    @property
    def has_map(self) -> bool:
        """Whether F_theta decided here, so that its map means something."""
        return len(self.parts) == 1 and self.card.foveation is not None and self.role in LEARNING


@dataclass(frozen=True)
class Scoring:
    """All entries, in the order of the tables, and what could not be scored."""

    name: str
    entries: list[Entry]
    config: EvaluateConfig
    missing: list[str]
    """FOLD/MODEL of runs that are not finished, and ensembles that wait for them."""


def read_scoring(path: Path) -> Scoring:
    """What the file at `path` asks for: an experiment, a plain recipe, or bundles with data.

    OptionInvalid names the field that is wrong; BundleUnknown and BundleInvalid the bundle.
    """
    entries = read_yaml(path)
    if isinstance(entries, Mapping) and "bundles" in entries:
        return _of_bundles(path, entries)
    return _of_experiment(read_experiment(path))


def _of_bundles(path: Path, content: Mapping[str, Any]) -> Scoring:
    try:
        file = BundlesFile.model_validate(content)
    except ValidationError as error:
        raise OptionInvalid(f"{path}: {faults_of(error)}", hint="Mend the file; see docs/evaluate.md.") from error
    config = file.evaluate
    several = len(file.bundles) > 1
    found = [
        entry
        for name, directory in file.bundles.items()
        for entry in _by_policy(name if several else "", "all", directory, file.data, config)
    ]
    return _with_ensembles(Scoring(path.stem, found, config, []), ["all"])


def _of_experiment(experiment: Experiment) -> Scoring:
    found: list[Entry] = []
    missing: list[str] = []
    single = len(experiment.models) == 1
    for run in experiment.runs:
        directory = _finished(run)
        if directory is None:
            missing.append(f"{run.fold}/{run.model}")
        elif isinstance(run.config.training, Joint):
            found.append(_joint(run, run.config.training, directory, experiment.evaluate))
        else:
            prefix = "" if single else run.model
            found += _by_policy(prefix, run.fold, directory, run.config.data, experiment.evaluate)
    return _with_ensembles(Scoring(experiment.name, found, experiment.evaluate, missing), experiment.folds)


def _finished(run: Run) -> Path | None:
    """The run's bundle, or what its recipe has published; None: neither is there."""
    places = [run.config.run / "bundle", *([run.config.output] if run.config.output else [])]
    return next((place for place in places if (place / CARD_FILE).is_file()), None)


def _joint(run: Run, joint: Joint, directory: Path, config: EvaluateConfig) -> Entry:
    tau = temperature(1, 1, joint.tau_rate) if joint.tau == "annealed" else joint.tau
    # Without noise, straight-through Gumbel and a draw from f both read the likeliest field of view.
    hard = joint.policy == "categorical" or (joint.policy == "gumbel" and joint.hard)
    part = Part(directory, "mode" if hard else joint.policy, tau, config.geometry or joint.geometry)
    maps = run.config.run / "maps"
    return Entry(
        name=run.model,
        fold=run.fold,
        parts=(part,),
        card=read_card(directory),
        data=run.config.data,
        role=joint.policy,
        family="",
        maps=maps if maps.is_dir() else None,
    )


def _by_policy(prefix: str, fold: str, directory: Path, data: Data, config: EvaluateConfig) -> list[Entry]:
    """A network that was not trained for one policy: an entry for each of those asked for."""
    card = read_card(directory)
    policies = config.policies or list(dict.fromkeys([card.policy, *(f"fixed:{k + 1}" for k in range(len(card.fovs)))]))
    for policy in policies:
        check_policy(policy, fovs=len(card.fovs), mapping=card.mapping, foveated=card.foveation is not None)
    geometry = config.geometry or "lattice"
    return [
        Entry(
            name=f"{prefix} {policy}".strip(),
            fold=fold,
            parts=(Part(directory, policy, TAU_END, geometry),),
            card=card,
            data=data,
            role=policy,
            family=str(directory),
        )
        for policy in policies
    ]


def _with_ensembles(scoring: Scoring, folds: list[str]) -> Scoring:
    entries, missing = list(scoring.entries), list(scoring.missing)
    for name, models in scoring.config.ensembles.items():
        for fold in folds:
            members = [
                entry for model in models for entry in scoring.entries if (entry.name, entry.fold) == (model, fold)
            ]
            if len(members) < len(models):
                missing.append(f"{fold}/{name}")
                continue
            entries.append(_ensemble(name, members))
    return replace(scoring, entries=entries, missing=missing)


def _reading(entry: Entry) -> str:
    """How an image is read for an entry, in words: what the members of an ensemble must share."""
    card, spacing = entry.card, entry.card.input.spacing
    pixels = "as it is" if spacing is None else f"at {spacing:g} {card.input.spacing_unit}"
    values = f"{'/'.join(card.input.bands)} {card.input.dtype} over {card.input.value_scale:g}"
    return f"{values}, {pixels}, patches of {card.patch_size}, {entry.geometry}"


def _ensemble(name: str, members: list[Entry]) -> Entry:
    first = members[0]
    for member in members[1:]:
        if member.card.classes != first.card.classes:
            raise OptionInvalid(
                f"ensemble {name}: {member.name} and {first.name} have different classes",
                hint="Average models of the same classes only.",
            )
        if _reading(member) != _reading(first):
            raise OptionInvalid(
                f"ensemble {name}: {member.name} and {first.name} read images differently "
                f"({_reading(member)} and {_reading(first)})",
                hint="Average models of the same bands, type, spacing, patch size and geometry only.",
            )
    parts = tuple(part for member in members for part in member.parts)
    return replace(first, name=name, parts=parts, role="ensemble", family="", maps=None)

"""`foveate evaluate`: score everything that a file names, and write one directory about it."""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from foveate.errors import OptionInvalid
from foveate.localfiles import check_unasked
from foveate.progress import Report
from model.bundle import load_bundle, store_coverage
from model.cells import thumbnail_step
from model.datasets.labelled import open_labelled
from model.datasets.layouts import find_pairs, labelling_of
from model.datasets.pair import Pair
from model.device import choose_device
from model.evaluation.config import Bootstrap, EvaluateConfig
from model.evaluation.coverage import measure, subjects
from model.evaluation.coverage_report import Judged, coverage_json, judge
from model.evaluation.curve import curve_card
from model.evaluation.entries import Entry, Scoring, read_scoring
from model.evaluation.memory import ScoreMemory, score_key
from model.evaluation.predict import Member, Sampling
from model.evaluation.report import scores_json, write_report
from model.evaluation.results import Results, SweepPoint, averaged_classes
from model.evaluation.scores import EntryScore, ImageScore, Wanted, score_image
from model.heap import KEPT_IN_TRAINING, set_up_heap
from model.predictor import Predictor
from raster.geometry import Size
from raster.grid import make_lattice

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """What was written, where, and the same numbers as plain JSON values."""

    directory: Path
    scores: dict[str, Any]
    missing: list[str]


@dataclass(frozen=True)
class _Task:
    """One entry on the images of its fold, at each of `shares` (null: as configured)."""

    entry: Entry
    pairs: list[Pair]
    shares: tuple[float | None, ...]

    @property
    def weights(self) -> list[float]:
        """Expected work at each share: forwards grow with the square of the resolution."""
        each = len(self.entry.parts) * len(self.pairs)
        return [each * (1.0 if share is None else share**-2) for share in self.shares]


def evaluate(
    path: Path,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    device: str = "auto",
    command: str | None = None,
    store: Path | None = None,
    coverage: bool = True,
    report: Report = lambda share, message: None,
) -> Evaluation:
    """Score what the file at `path` names (an experiment, a recipe, or bundles with data) and write `out`.

    `out` None: evaluation/NAME, the name of the experiment, the bundle or the file. Work lies in `out`.partial until it
    is complete; the same call goes on from there, image by image. Runs that are not finished are named and left out.
    `store`: the bundle whose card takes the curve of adaptive coverage. Without `coverage` no curve is measured,
    whatever the file asks.
    Raises OutputExists without `overwrite`; OptionInvalid where the file is wrong, nothing is finished, or labels and
    classes do not go together; image and bundle errors as they come.
    """
    scoring = read_scoring(path)
    out = out or Path("evaluation") / scoring.name
    check_unasked(out, overwrite=overwrite)
    if not scoring.entries:
        raise OptionInvalid(
            f"{path}: no run is finished ({', '.join(scoring.missing)})", hint=f"Run `foveate train {path}` first."
        )
    _check(scoring)
    covered = subjects(scoring) if coverage and scoring.config.coverage else {}
    if store is not None:
        _check_store(store, covered)
    set_up_heap(KEPT_IN_TRAINING)
    tasks, chosen = _tasks(scoring), choose_device(device)
    partial, command = out.with_name(out.name + ".partial"), command or f"foveate evaluate {path}"
    results, curves = _measured(scoring, tasks, covered, chosen, partial, report)
    _publish(out, partial, lambda draft: write_report(results, draft, command, chosen, curves))
    if store is not None:
        rows = coverage_json(next(iter(curves.values())))
        store_coverage(store, curve_card(rows, load_bundle(store).card.coverage.default))
    return Evaluation(out, scores_json(results, curves), scoring.missing)


def _measured(
    scoring: Scoring,
    tasks: list[_Task],
    covered: dict[str, list[Entry]],
    device: torch.device,
    partial: Path,
    report: Report,
) -> tuple[Results, dict[str, list[Judged]]]:
    """Scores, and the curves of the networks that are `covered`; what cost time is kept in `partial`."""
    memory = ScoreMemory(partial / "scores")
    share = 0.5 if covered else 1.0
    results = _score_all(scoring, tasks, device, memory, lambda done, message: report(share * done, message))
    return results, _curves(results, covered, device, partial / "coverage", report)


def _publish(out: Path, partial: Path, write: Callable[[Path], None]) -> None:
    """What `write` puts into an empty directory becomes `out` in one go; then the work in `partial` is gone."""
    draft = partial / "report"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    write(draft)
    if out.exists():
        shutil.rmtree(out)
    draft.rename(out)
    shutil.rmtree(partial)


def _check_store(store: Path, covered: dict[str, list[Entry]]) -> None:
    """What can be refused before the curve is measured."""
    card = load_bundle(store).card
    if len(covered) != 1:
        raise OptionInvalid(
            f"--store takes the curve of one network, and {', '.join(covered) or 'none'} is to be measured",
            hint="Set evaluate.coverage to true, or to a list of one name, and leave --no-coverage out.",
        )
    measured = next(iter(covered.values()))[0].card
    if (measured.fovs, measured.patch_size) != (card.fovs, card.patch_size):
        raise OptionInvalid(
            f"--store {store}: its fields of view are {card.fovs}, those of the measured network {measured.fovs}",
            hint="Store the curve in a bundle of the same recipe.",
        )


def _curves(
    results: Results, covered: dict[str, list[Entry]], device: torch.device, directory: Path, report: Report
) -> dict[str, list[Judged]]:
    """The curves of adaptive coverage by network."""
    config = results.scoring.config.bootstrap or Bootstrap()
    found = {}
    for name, entries in covered.items():
        measured = measure(
            entries,
            results.scoring,
            device,
            directory,
            lambda done, name=name: report(0.5 + done / 2, f"coverage of {name}"),  # type: ignore[misc]
        )
        found[name] = judge(measured, results.over, config)
    return found


def _check(scoring: Scoring) -> None:
    """What can be refused before any work."""
    averaged_classes(scoring)
    if scoring.config.gold:
        _check_gold(scoring)
    if scoring.config.objects and all(labelling_of(entry.data).objects is None for entry in scoring.entries):
        raise OptionInvalid(
            "evaluate.objects: the data do not say which class their labels number object by object",
            hint="Name it in data.objects (docs/datasets.md), or set evaluate.objects to false.",
        )
    names = [entry.name for entry in scoring.entries]
    reference = scoring.config.reference
    if reference is not None and reference not in names:
        waits = any(missing.partition("/")[2] == reference for missing in scoring.missing)
        raise OptionInvalid(
            f"evaluate.reference: {reference!r} is not {'finished' if waits else 'among the models'}",
            hint=f"Choose one of {', '.join(dict.fromkeys(names))}.",
        )
    first = scoring.entries[0]
    if scoring.config.bootstrap is not None and scoring.config.bootstrap.block is not None:
        _check_blocks(scoring)
    for entry in scoring.entries[1:]:
        if [c.name for c in entry.card.classes] != [c.name for c in first.card.classes]:
            raise OptionInvalid(
                f"{entry.name} and {first.name} have different classes",
                hint="Score models of different classes in files of their own.",
            )


def _check_blocks(scoring: Scoring) -> None:
    """Blocks are drawn for two models at once, and must be the same ground."""
    first = scoring.entries[0]
    for entry in scoring.entries[1:]:
        seen, at_first = entry.card.input.spacing, first.card.input.spacing
        if seen != at_first:
            raise OptionInvalid(
                f"evaluate.bootstrap.block: {entry.name} sees pixels of {seen or 'any spacing'}, {first.name} of "
                f"{at_first or 'any spacing'}, so that a block is not the same ground",
                hint="Set bootstrap.block to null (images are drawn then), or score the models in files of their own.",
            )


def _tasks(scoring: Scoring) -> list[_Task]:
    tasks = []
    for entry in scoring.entries:
        pairs = find_pairs(entry.data, scoring.config.split)
        if not pairs:
            raise OptionInvalid(
                f"the data of {entry.fold}/{entry.name} have no {scoring.config.split} images",
                hint="Name some in the data, or choose another evaluate.split.",
            )
        swept = scoring.config.resolutions if len(entry.parts) == 1 else []
        tasks.append(_Task(entry, pairs, (None, *swept)))
    return tasks


def _score_all(
    scoring: Scoring, tasks: list[_Task], device: torch.device, memory: ScoreMemory, report: Report
) -> Results:
    total = sum(sum(task.weights) for task in tasks)
    done = 0.0
    scores: dict[tuple[str, str], EntryScore] = {}
    swept: dict[tuple[str, float], list[ImageScore]] = {}
    for task in tasks:
        entry = task.entry
        members = [Member(Predictor(load_bundle(part.bundle), device), part.policy, part.tau) for part in entry.parts]
        configured = _step(entry, scoring.config, None)
        for share, weight in zip(task.shares, task.weights, strict=True):
            images = []
            if share is not None and _step(entry, scoring.config, share) == configured:
                # The configured resolution is one of the sweep.
                images = scores[entry.name, entry.fold].images
            for pair in task.pairs[len(images) :]:
                report(done / total, f"{entry.fold}/{entry.name}")
                images.append(_score(scoring, entry, pair, members, share, memory))
                done += weight / len(task.pairs)
            if share is None:
                scores[entry.name, entry.fold] = EntryScore(images)
            else:
                swept.setdefault((entry.name, share), []).extend(images)
    report(1.0, "writing the report")
    results = Results(scoring, scores)
    sweep = [
        SweepPoint(name, share, _step(results.entry(name), scoring.config, share), EntryScore(images))
        for (name, share), images in swept.items()
    ]
    return replace(results, sweep=sweep)


def _score(
    scoring: Scoring, entry: Entry, pair: Pair, members: list[Member], share: float | None, memory: ScoreMemory
) -> ImageScore:
    config = scoring.config
    block = config.bootstrap.block if config.bootstrap else None
    wanted = Wanted(
        block=block,
        windows=_gold_step(scoring, entry) if config.gold and entry.is_fixed else None,
        map=entry.has_map,
        objects=config.objects,
    )
    # A point of the sweep is a score alone.
    wanted = wanted if share is None else Wanted(block=block)
    sampling = _sampling(entry, config, share)
    key = score_key(members, pair, entry.data, sampling, wanted)
    score = memory.get(key)
    if score is None:
        with contextlib.closing(open_labelled(pair, entry.data, entry.card)) as image:
            score = score_image(members, image, sampling, wanted, labelling_of(entry.data).objects)
        memory.put(key, score)
    return score


def _check_gold(scoring: Scoring) -> None:
    fixed = [entry for entry in scoring.entries if entry.is_fixed]
    for entry in fixed:
        _gold_step(scoring, entry)
    roles: dict[Any, set[str]] = {}
    for entry in fixed:
        roles.setdefault(entry.rivals, set()).add(entry.role)
    complete = [rivals for rivals, found in roles.items() if 1 < len(rivals[-1]) == len(found)]
    if not complete and not scoring.missing:  # what is still to be trained may complete one
        raise OptionInvalid(
            "evaluate.gold: no bank of several fields of view has a fixed network for each (fixed:1, fixed:2, …)",
            hint="Train or name those, or set evaluate.gold to false.",
        )


def _gold_step(scoring: Scoring, fixed: Entry) -> int:
    """F_theta's step in the maps that this fixed network helps to judge; its own where there are none.

    OptionInvalid where those maps, or the fixed network, lie on different grids.
    """
    judged = [entry for entry in scoring.entries if entry.has_map and entry.rivals == fixed.rivals]
    steps = {thumbnail_step(entry.card) for entry in judged} or {thumbnail_step(fixed.card)}
    if len(steps) > 1 or {entry.geometry for entry in judged} - {fixed.geometry}:
        raise OptionInvalid(
            f"evaluate.gold: the maps of {', '.join(entry.name for entry in judged)} and the fixed networks lie on "
            "different grids",
            hint="Give them one foveation.downsample and one geometry, or set evaluate.gold to false.",
        )
    return steps.pop()


def _sampling(entry: Entry, config: EvaluateConfig, share: float | None) -> Sampling:
    plain = Sampling(entry.geometry, config.overlap, config.step)
    if share is None:
        return plain
    return replace(plain, overlap=1 - share, step=max(1, round(share * entry.card.patch_size)))


def _step(entry: Entry, config: EvaluateConfig, share: float | None) -> int:
    """Pixels from one location to the next."""
    sampling, card = _sampling(entry, config, share), entry.card
    if sampling.geometry != "lattice":
        return sampling.step or card.patch_size
    # The stride does not depend on the image's size.
    return make_lattice(Size(1, 1), card.patch_size, tuple(card.fovs), sampling.overlap).stride

"""All that was measured in one evaluation, and the questions that tables and figures ask it.

Letters: K classes, D fields of view.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from foveate.errors import OptionInvalid
from model.evaluation.bootstrap import Draws, Interval, draw, interval, mean_iou
from model.evaluation.entries import Entry, Scoring
from model.evaluation.foveation import GoldMaps, gold_maps
from model.evaluation.scores import EntryScore
from model.metrics import foveation_map

__all__ = ["GoldSet", "Results", "SweepPoint"]


@dataclass(frozen=True)
class SweepPoint:
    """An entry at one inference resolution: `share` of the smallest field of view from one location to the next."""

    name: str
    share: float
    step: int
    """Pixels; what the lattice made of the share."""
    score: EntryScore


@dataclass(frozen=True)
class GoldSet:
    """The gold standards of the images of one fold (or more), with the maps that are judged by them.

    All lists go image by image.
    """

    bank: tuple[int, ...]
    images: list[str]
    gold: list[GoldMaps]
    maps: dict[str, list[NDArray[np.float64]]]
    """V in pixels by entry."""


@dataclass(frozen=True)
class Results:
    """Scores by (entry, fold), and what was measured beside them."""

    scoring: Scoring
    scores: dict[tuple[str, str], EntryScore]
    sweep: list[SweepPoint] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        return [entry.name for entry in self.scoring.entries[0].card.classes]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(entry.name for entry in self.scoring.entries))

    @property
    def folds(self) -> list[str]:
        return list(dict.fromkeys(entry.fold for entry in self.scoring.entries))

    @property
    def over(self) -> list[int]:
        """The classes of the class average."""
        return averaged_classes(self.scoring)

    def entry(self, name: str) -> Entry:
        """The first fold's."""
        return next(entry for entry in self.scoring.entries if entry.name == name)

    def pooled(self, name: str, folds: list[str] | None = None) -> EntryScore:
        """An entry over all folds that it has, or over `folds`."""
        wanted = self.folds_of(name) if folds is None else folds
        return EntryScore([image for fold in wanted for image in self.scores[name, fold].images])

    def folds_of(self, name: str) -> list[str]:
        return [fold for fold in self.folds if (name, fold) in self.scores]

    def mean_iou(self, name: str) -> float:
        return self.pooled(name).counts.mean_iou(over=self.over)

    @property
    def reference(self) -> str | None:
        """What the others are compared with: as configured, else the best fixed entry; None where there is none."""
        if self.scoring.config.reference is not None:
            return self.scoring.config.reference
        fixed = [name for name in self.names if self.entry(name).is_fixed]
        return max(fixed, key=self.mean_iou, default=None)

    def interval(self, name: str) -> Interval | None:
        """Of the mean IoU; None without a bootstrap."""
        config = self.scoring.config.bootstrap
        if config is None:
            return None
        score = self.pooled(name)
        return interval(mean_iou(self._draws(score).confusions(score.confusion), self.over), config.level)

    def difference(self, name: str, reference: str) -> tuple[float, Interval | None]:
        """Mean IoU less that of `reference`, over the folds that both have, with its paired interval."""
        folds = [fold for fold in self.folds_of(name) if fold in self.folds_of(reference)]
        ours, theirs = self.pooled(name, folds), self.pooled(reference, folds)
        gap = ours.counts.mean_iou(over=self.over) - theirs.counts.mean_iou(over=self.over)
        config = self.scoring.config.bootstrap
        if config is None or not folds:
            return gap, None
        draws = self._draws(ours)
        values = [mean_iou(draws.confusions(score.confusion), self.over) for score in (ours, theirs)]
        return gap, interval(values[0] - values[1], config.level)

    def _draws(self, score: EntryScore) -> Draws:
        assert self.scoring.config.bootstrap is not None
        return draw([len(image.confusion) for image in score.images], self.scoring.config.bootstrap)

    def gold_sets(self) -> list[GoldSet]:
        """One for each family and bank of fixed networks that is complete: a network for every field of view.

        Folds are joined.
        """
        found: dict[tuple[str, tuple[int, ...]], GoldSet] = {}
        for rivals in dict.fromkeys(entry.rivals for entry in self.scoring.entries if entry.is_fixed):
            made = self._gold_set(rivals)
            if made is not None:
                key = rivals[1:]
                found[key] = _joined(found[key], made) if key in found else made
        return list(found.values())

    def _gold_set(self, rivals: tuple[str, str, tuple[int, ...]]) -> GoldSet | None:
        fold, _, bank = rivals
        here = [entry for entry in self.scoring.entries if entry.rivals == rivals]
        fixed = {entry.role: self.scores[entry.name, fold].images for entry in here if entry.is_fixed}
        wanted = [f"fixed:{k + 1}" for k in range(len(bank))]
        if len(bank) < 2 or not all(role in fixed for role in wanted):
            return None
        gold = []
        for images in zip(*(fixed[role] for role in wanted), strict=True):
            gold.append(gold_maps([image.windows for image in images if image.windows is not None], bank))
        maps = {
            entry.name: [
                foveation_map(image.distribution, bank)
                for image in self.scores[entry.name, fold].images
                if image.distribution is not None
            ]
            for entry in here
            if entry.has_map
        }
        return GoldSet(bank, [image.name for image in fixed[wanted[0]]], gold, maps)


def averaged_classes(scoring: Scoring) -> list[int]:
    """Indices of the classes in the class average; OptionInvalid where `mean_over` names one that is not there."""
    names = [entry.name for entry in scoring.entries[0].card.classes]
    wanted = scoring.config.mean_over or names
    for name in wanted:
        if name not in names:
            raise OptionInvalid(
                f"evaluate.mean_over: there is no class {name!r}", hint=f"The classes are {', '.join(names)}."
            )
    return [names.index(name) for name in wanted]


def _joined(first: GoldSet, second: GoldSet) -> GoldSet:
    """Both folds' images; only the entries that both have."""
    return GoldSet(
        first.bank,
        first.images + second.images,
        first.gold + second.gold,
        {name: first.maps[name] + second.maps[name] for name in first.maps if name in second.maps},
    )

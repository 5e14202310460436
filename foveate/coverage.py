"""Which coverage a bundle can have, and where on its curve a job stands (design 2 and 4.1)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from foveate.card import fovs_nest
from foveate.errors import OptionInvalid
from foveate.schema import BundleCard, CurvePoint, SegmentOptions

__all__ = ["DEFAULT_DETAIL", "Coverage", "checked_coverage", "coverage_kind", "nests", "threshold_at"]

Kind = Literal["dense", "planned", "refined"]

DEFAULT_DETAIL = 0.35
"""Where neither the user nor the bundle says: about a third of dense's forwards."""


@dataclass(frozen=True)
class Coverage:
    """How an image is covered. `detail` is None for dense; `threshold` is that of refined, None otherwise."""

    kind: Kind
    detail: float | None = None
    threshold: float | None = None


def coverage_kind(card: BundleCard, options: SegmentOptions) -> Kind:
    """What `options` ask of this bundle, or its own. A policy alone asks for dense: it says what every cell sees."""
    return options.coverage or ("dense" if options.policy is not None else card.coverage.default)


def checked_coverage(card: BundleCard, options: SegmentOptions) -> Coverage:
    """The coverage that `options` ask of this bundle, or its own; OptionInvalid where it cannot be had."""
    kind = coverage_kind(card, options)
    if kind == "dense":
        if options.detail is not None:
            raise OptionInvalid(
                f"detail {options.detail:g} steers adaptive coverage, and the coverage is dense",
                hint="leave --detail out, or add --coverage planned",
            )
        return Coverage(kind)
    _check_possible(card, kind)
    if options.policy is not None:
        raise OptionInvalid(
            f"policy {options.policy!r} says what every cell sees, and under coverage {kind!r} the tree does",
            hint="leave --policy out, or use --coverage dense",
        )
    detail = options.detail
    if detail is None:
        detail = card.coverage.detail if card.coverage.detail is not None else DEFAULT_DETAIL
    if kind == "planned":
        return Coverage(kind, detail)
    points = [point for point in card.coverage.curve if point.coverage == "refined" and point.threshold is not None]
    if not points:
        raise OptionInvalid(
            f"coverage 'refined' needs the curve that says what a detail means, and {card.name} has none",
            hint="measure it on labelled images (`foveate evaluate` with coverage, see docs/evaluate.md), "
            "or use --coverage planned",
        )
    return Coverage(kind, detail, threshold_at(points, detail))


def threshold_at(points: list[CurvePoint], detail: float) -> float:
    """The threshold at a place of the curve, linear between measured points and that of the nearest beyond them."""
    ordered = sorted((point.detail, point.threshold) for point in points if point.threshold is not None)
    if detail <= ordered[0][0]:
        return ordered[0][1]
    for (below, before), (above, after) in pairwise(ordered):
        if detail <= above:
            t = (detail - below) / max(above - below, 1e-12)
            return (1 - t) * before + t * after
    return ordered[-1][1]


def nests(card: BundleCard) -> bool:
    """Whether a tree of this bundle's fields of view can cover an image."""
    return card.mapping == "explicit" and fovs_nest(card.fovs)


def _check_possible(card: BundleCard, kind: str) -> None:
    if card.mapping != "explicit":
        raise OptionInvalid(
            f"coverage {kind!r} needs a bundle of explicit mapping, and {card.name} maps implicitly",
            hint="use --coverage dense, or another bundle",
        )
    if not nests(card):
        raise OptionInvalid(
            f"coverage {kind!r} needs several fields of view with whole ratios between neighbours, "
            f"and those of {card.name} are {card.fovs}",
            hint="use --coverage dense, or another bundle",
        )

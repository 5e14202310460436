"""Adaptive coverage's numbers as a table, as JSON, and as the curve that a bundle carries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import CoverageCard, CurvePoint
from model.evaluation.bootstrap import draw, interval, mean_iou
from model.evaluation.config import Bootstrap
from model.evaluation.coverage import REFINED, Measured, Point
from model.evaluation.scores import rounded
from model.evaluation.tables import Cell, Table
from model.metrics import ClassCounts

__all__ = ["Judged", "coverage_json", "coverage_table", "curve_card", "judge"]

_WORTH = 0.005
"""What the operating point may lose against the best fixed scale."""
_SAME_COST = 1.02


@dataclass(frozen=True)
class Judged:
    """A point beside the best fixed scale: differences of mIoU, paired, with their interval."""

    point: Point
    miou: float
    iou: list[float]
    difference: float
    low: float
    high: float
    as_good: str | None
    """A fixed scale, or a mean of some, that costs no more and is not shown to be worse."""


def judge(measured: Measured, over: Sequence[int], config: Bootstrap) -> list[Judged]:
    """Every point of a network beside its best fixed scale, which is chosen on the same images."""
    draws = draw(measured.blocks, config)
    scores = [_miou(point, over) for point in measured.points]
    plain = [k for k, point in enumerate(measured.points) if point.coverage in ("fixed", "mean")]
    best = max((k for k in plain if measured.points[k].coverage == "fixed"), key=lambda k: scores[k])
    drawn = [mean_iou(draws.confusions(point.confusion), over) for point in measured.points]
    found = []
    for k, point in enumerate(measured.points):
        low, high = interval(drawn[k] - drawn[best], config.level)
        rivals = [] if k in plain else [j for j in plain if measured.points[j].share <= point.share * _SAME_COST]
        rival = max(rivals, key=lambda j: scores[j], default=None)
        as_good = None
        if rival is not None and interval(drawn[k] - drawn[rival], config.level)[0] <= 0:
            as_good = label(measured.points[rival])
        iou = ClassCounts.of_confusion(point.confusion.sum(axis=0)).iou.tolist()
        found.append(Judged(point, scores[k], iou, scores[k] - scores[best], low, high, as_good))
    return found


def label(point: Point) -> str:
    """What a cover is called in tables."""
    if point.coverage == "fixed":
        return f"d = {point.signal}"
    if point.coverage == "mean":
        return f"mean of the {point.signal} finest"
    return f"{point.coverage}, {point.signal}"


def coverage_table(name: str, judged: Sequence[Judged], classes: Sequence[str]) -> Table:
    columns = ("cover", "detail", "share", "seconds", "mIoU", "to best fixed", "low", "high", "as good", *classes)
    rows: list[tuple[Cell, ...]] = [
        (
            label(one.point),
            None if one.point.detail is None else f"{one.point.detail:g}",
            f"{one.point.share:.3f}",
            float(one.point.seconds),
            100 * one.miou,
            *(100 * value for value in (one.difference, one.low, one.high)),
            one.as_good,
            *(100 * value for value in one.iou),
        )
        for one in judged
    ]
    notes = (
        "share: forwards over those of dense coverage, inner nodes counted. Fixed scales cover the image by the tree's "
        "whole fields of view, a few more than dense's at the finest; d working pixels make one pixel of a patch.",
        "random, gradient and oracle (the labels' own first-order gain, one step ahead) are controls, at the same "
        "budgets, and so is entropy without learning. Thresholds of refined coverage are those that spend the detail's "
        "share over all these images.",
        "as good: a fixed scale, or a mean, at no more forwards that the interval does not show to be worse.",
    )
    return Table(f"coverage-{name}", f"Adaptive coverage of {name}", columns, rows, notes, digits=2)


def coverage_json(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    return [
        {
            "coverage": one.point.coverage,
            "signal": one.point.signal,
            "detail": one.point.detail,
            "threshold": one.point.threshold,
            "share": rounded(one.point.share),
            "seconds": round(one.point.seconds, 1),
            "miou": rounded(one.miou),
            "to_best_fixed": rounded(one.difference),
            "interval": [rounded(one.low), rounded(one.high)],
            "as_good": one.as_good,
        }
        for one in judged
    ]


def curve_card(judged: Sequence[Judged], before: CoverageCard) -> CoverageCard:
    """The coverage of a bundle's card with this curve.

    Plans are made by whichever signal did better at equal budgets; the operating point is the least detail of refined
    coverage that loses at most half a point to the best fixed scale. A default that the curve does not support becomes
    dense; none becomes adaptive by itself.
    """
    planned = [signal for signal in ("gradient", "gradient x F_theta") if _of(judged, "planned", signal)]
    signal = max(planned, key=lambda name: float(np.mean([one.miou for one in _of(judged, "planned", name)])))
    chosen = _of(judged, "planned", signal) + _of(judged, "refined", REFINED)
    curve = [_curve_point(one) for one in chosen]
    worth = [one.point.detail for one in _of(judged, "refined", REFINED) if one.difference >= -_WORTH]
    supported = before.default == "dense" or any(p.coverage == before.default and p.low >= 0 for p in curve)
    return CoverageCard(
        default=before.default if supported else "dense",
        detail=min((detail for detail in worth if detail is not None), default=None),
        planning="gradient" if signal == "gradient" else "foveation",
        curve=curve,
    )


def _curve_point(one: Judged) -> CurvePoint:
    assert one.point.detail is not None
    coverage = "planned" if one.point.coverage == "planned" else "refined"
    return CurvePoint(
        coverage=coverage,  # type: ignore[arg-type]
        detail=one.point.detail,
        threshold=None if one.point.threshold is None else round(one.point.threshold, 6),
        share=round(one.point.share, 4),
        seconds=round(one.point.seconds, 1),
        miou=round(one.miou, 4),
        low=round(one.low, 4),
        high=round(one.high, 4),
    )


def _of(judged: Sequence[Judged], coverage: str, signal: str) -> list[Judged]:
    return [one for one in judged if (one.point.coverage, one.point.signal) == (coverage, signal)]


def _miou(point: Point, over: Sequence[int]) -> float:
    total: NDArray[np.int64] = point.confusion.sum(axis=0)
    return float(ClassCounts.of_confusion(total).mean_iou(over=list(over)))

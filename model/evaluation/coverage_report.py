"""Adaptive coverage's numbers as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.evaluation.bootstrap import draw, interval, mean_iou
from model.evaluation.config import Bootstrap
from model.evaluation.coverage import CoveragePoints, Point
from model.evaluation.scores import rounded
from model.evaluation.tables import Cell, Table
from model.metrics import ClassCounts

__all__ = ["Judged", "coverage_json", "coverage_table", "judge"]

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


def judge(measured: CoveragePoints, over: Sequence[int], config: Bootstrap) -> list[Judged]:
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


def _miou(point: Point, over: Sequence[int]) -> float:
    total: NDArray[np.int64] = point.confusion.sum(axis=0)
    return float(ClassCounts.of_confusion(total).mean_iou(over=list(over)))

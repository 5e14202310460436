"""The curve of adaptive coverage that a bundle carries, from what an evaluation found."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, Literal

from foveate.schema import CoverageCard, CurvePoint
from model.evaluation.coverage import REFINED

__all__ = ["curve_card"]

_WORTH = 0.005
"""What the operating point may lose against the best fixed scale where nobody needs it."""

Row = Mapping[str, Any]
"""A point as `scores.json` has it (`coverage_json`)."""


def curve_card(rows: Sequence[Row], default: Literal["dense", "planned", "refined"]) -> CoverageCard:
    """The coverage of a bundle's card with the curve of its network.

    Plans are made by whichever signal did better at equal budgets. A `default` that the curve does not support (no
    point whose interval against the best fixed scale begins at 0 or above) becomes dense; none becomes adaptive by
    itself. The detail where nobody names one: the least that is supported, if the default is adaptive; else the least
    of refined coverage that loses at most half a point.
    """
    planned = [signal for signal in ("gradient", "gradient x F_theta") if _of(rows, "planned", signal)]
    signal = max(planned, key=lambda name: mean(row["miou"] for row in _of(rows, "planned", name)))
    refined = _of(rows, "refined", REFINED)
    curve = [_point(row) for row in [*_of(rows, "planned", signal), *refined]]
    supported = [point.detail for point in curve if point.coverage == default and point.low >= 0]
    worth = [row["detail"] for row in refined if row["to_best_fixed"] >= -_WORTH]
    return CoverageCard(
        default=default if supported else "dense",
        detail=min(supported or worth, default=None),
        planning="gradient" if signal == "gradient" else "foveation",
        curve=curve,
    )


def _point(row: Row) -> CurvePoint:
    return CurvePoint(
        coverage=row["coverage"],
        detail=row["detail"],
        threshold=None if row["threshold"] is None else round(row["threshold"], 6),
        share=round(row["share"], 4),
        seconds=row["seconds"],
        miou=row["miou"],
        low=row["interval"][0],
        high=row["interval"][1],
    )


def _of(rows: Sequence[Row], coverage: str, signal: str) -> list[Row]:
    return [row for row in rows if (row["coverage"], row["signal"]) == (coverage, signal)]

"""What of a measured curve a bundle carries: a default only where the curve supports it, and a detail to begin with."""

from typing import Any

import pytest

from model.evaluation.curve import curve_card


def row(coverage: str, signal: str, detail: float, difference: float, low: float) -> dict[str, Any]:
    figures = {"share": detail, "seconds": 1.0, "miou": 0.6 + difference, "interval": [low, low + 0.02]}
    return {"coverage": coverage, "signal": signal, "detail": detail, "to_best_fixed": difference} | (
        figures | {"threshold": 1 - detail if coverage == "refined" else None}
    )


PLANNED = [row("planned", "gradient", 0.5, -0.02, -0.03), row("planned", "gradient x F_theta", 0.5, -0.01, -0.02)]
REFINED = [row("refined", "entropy, learning", *at) for at in ((0.3, -0.01, -0.02), (0.5, -0.004, -0.01))]
SUPPORTED = row("refined", "entropy, learning", 0.8, 0.004, 0.0)
OTHERS = [row("fixed", "1", 1.0, 0.0, 0.0), row("refined", "oracle", 0.5, 0.02, 0.01)]


@pytest.mark.parametrize(
    ("rows", "asked", "default", "detail"),
    [
        ([*REFINED, SUPPORTED], "refined", "refined", 0.8),
        ([*REFINED, SUPPORTED], "dense", "dense", 0.5),
        ([*REFINED, SUPPORTED], "planned", "dense", 0.5),
        (REFINED, "refined", "dense", 0.5),
        (REFINED[:1], "refined", "dense", None),
    ],
)
def test_the_default_is_adaptive_only_where_the_curve_supports_it(
    rows: list[dict[str, Any]], asked: Any, default: str, detail: float | None
) -> None:
    card = curve_card([*OTHERS, *PLANNED, *rows], asked)
    assert (card.default, card.detail) == (default, detail)


def test_the_curve_holds_the_better_plan_and_refinement_and_no_controls() -> None:
    card = curve_card([*OTHERS, *PLANNED, *REFINED], "dense")
    assert card.planning == "foveation"
    assert [(point.coverage, point.miou) for point in card.curve] == [
        ("planned", PLANNED[1]["miou"]),
        *(("refined", one["miou"]) for one in REFINED),
    ]

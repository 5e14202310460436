"""Adaptive coverage: mIoU against forwards and seconds on mosaics that no net saw, beside fixed scales and controls.

    make bench NAME=adaptive [JSON=FILE]        or        python -m bench.adaptive [--json FILE] [CONFIG] [--cache DIR]

CONFIG is an experiment of two or more folds, each with a trained net (default: examples/method/landcover.yaml). Every
node of every tree is forwarded once and kept in the cache; covers are put together by the code that inference runs.
Nothing is chosen on the images that it is judged on: thresholds and details come from the other folds' images.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import ROOT, Records, markdown
from bench.runner import run
from foveate.errors import OptionInvalid
from model.device import choose_device
from model.evaluation.bootstrap import Draws, draw, interval, mean_iou
from model.evaluation.config import Bootstrap
from model.evaluation.coverage import REFINED, CoveredImage, Point, measure_point, pooled, prepare, subjects
from model.evaluation.coverage_report import label
from model.evaluation.entries import read_scoring

CONFIG = ROOT / "examples" / "method" / "landcover.yaml"
CACHE = Path(os.environ.get("FOVEATE_BENCH_NODES", Path.home() / ".cache" / "foveate-bench" / "adaptive"))
DETAILS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
BUDGETS = (0.35, 0.5)
OWN = (("planned", "gradient"), ("planned", "gradient x F_theta"), ("refined", "entropy"), ("refined", REFINED))
CONTROLS = ("random", "gradient", "oracle")
WORTH = 0.005
"""What the thrifty operating point may lose against the finest scale."""

Folds = dict[str, list[CoveredImage]]


def measure_all(asked: argparse.Namespace) -> Records:
    scoring = read_scoring(asked.config)
    train = f"Run `foveate train {asked.config}` until its nets are trained."
    if not scoring.entries:
        raise SystemExit(f"{asked.config}: no run is finished ({', '.join(scoring.missing)}). {train}")
    name, entries = next(iter(subjects(scoring).items()))
    if len(entries) < 2:
        raise SystemExit(
            f"{name}: one fold alone is finished, and its operating point has to come from another. {train}"
        )
    config = scoring.config.bootstrap or Bootstrap()
    images = prepare(entries, scoring, choose_device("cpu"), asked.cache, lambda share: None)
    folds: Folds = {entry.fold: [image for image in images if image.fold == entry.fold] for entry in entries}
    return judged(measure(folds), [image.blocks for images in folds.values() for image in images], config)


def measure(folds: Folds) -> list[tuple[str, Point]]:
    """(what it is for, point): points over all folds, in the order of `folds`."""
    scales = next(iter(folds.values()))[0].nodes.tree.scales
    plain = [("fixed", f"{scale}") for scale in scales] + [("mean", f"{k}") for k in range(2, len(scales) + 1)]
    own = [pair for pair in OWN if pair[1] in _signals(folds, pair[0])]
    by_fold = {fold: [measure_point(images, *pair) for pair in plain] for fold, images in folds.items()}
    found = [("plain", pooled(points)) for points in zip(*by_fold.values(), strict=True)]
    for coverage, signal in own:
        curves = {
            fold: [measure_point(images, coverage, signal, detail) for detail in DETAILS]
            for fold, images in folds.items()
        }
        for use, rule in _rules(by_fold, curves).items():
            chosen = {fold: rule([other for other in folds if other != fold]) for fold in folds}
            found.append((use, pooled([_moved(folds[fold], curves, fold, at) for fold, at in chosen.items()])))
    return found + list(_controls(folds, found))


def _signals(folds: Folds, coverage: str) -> Sequence[str]:
    first = next(iter(folds.values()))[0]
    return list(first.planned if coverage == "planned" else first.refined)


Rule = Callable[[list[str]], int]
"""The index of the detail to use, from the curves of other folds."""


def _rules(plain: dict[str, list[Point]], curves: dict[str, list[Point]]) -> dict[str, Rule]:
    """How a place on the curve is chosen, by what it is for."""

    def least(others: list[str], bar: float) -> int:
        scores = [miou(pooled([curves[fold][k] for fold in others])) for k in range(len(DETAILS))]
        good = [k for k, score in enumerate(scores) if score >= bar]
        return good[0] if good else int(np.argmax(scores))

    def thrifty(others: list[str]) -> int:
        return least(others, miou(pooled([plain[fold][0] for fold in others])) - WORTH)

    def best(others: list[str]) -> int:
        count = len(next(iter(plain.values())))
        return least(others, max(miou(pooled([plain[fold][k] for fold in others])) for k in range(count)))

    rules: dict[str, Rule] = {f"{budget:g} of the forwards": _at(budget) for budget in BUDGETS}
    return rules | {"d = 1 minus 0.5": thrifty, "best fixed or mean": best}


def _at(budget: float) -> Rule:
    return lambda others: DETAILS.index(budget)


def _moved(images: list[CoveredImage], curves: dict[str, list[Point]], fold: str, at: int) -> Point:
    """The fold's images at that place of the others' curve: planned with its detail, refined with its threshold."""
    own = curves[fold][at]
    if own.coverage == "planned":
        return own
    thresholds = [points[at].threshold for other, points in curves.items() if other != fold]
    return measure_point(images, own.coverage, own.signal, own.detail, float(np.mean(np.array(thresholds, float))))


def _controls(folds: Folds, found: list[tuple[str, Point]]) -> list[tuple[str, Point]]:
    """Each control at the forwards of every learnt point, over these very images, which favours the controls."""
    images = [image for several in folds.values() for image in several]
    made: dict[tuple[str, float], Point] = {}
    for use, point in found:
        if use != "plain" and (point.coverage, point.signal) == OWN[-1]:
            for control in CONTROLS:
                key = control, point.share
                made[key] = made.get(key) or measure_point(images, point.coverage, control, point.share)
    return [(f"control at {share:.3f}", point) for (_, share), point in made.items()]


def judged(found: list[tuple[str, Point]], blocks: list[int], config: Bootstrap) -> Records:
    """One record a point: its differences to d = 1, to the best fixed scale or mean, and to its controls, paired."""
    over = range(found[0][1].confusion.shape[1])
    draws = draw(blocks, config)
    drawn = [_drawn(draws, point, over) for _, point in found]
    plain = [k for k, (use, _) in enumerate(found) if use == "plain"]
    best = max(plain, key=lambda k: miou(found[k][1]))
    records = []
    for k, (use, point) in enumerate(found):
        rivals = {"d = 1": plain[0], "best": best}
        for j, (other, control) in enumerate(found):
            if other == f"control at {point.share:.3f}" and k != j and not use.startswith("control"):
                rivals[control.signal] = j
        records.append(
            _record(use, point)
            | {
                f"to {name}": [
                    100 * (miou(point) - miou(found[j][1])),
                    *(100 * end for end in interval(drawn[k] - drawn[j], config.level)),
                ]
                for name, j in rivals.items()
            }
        )
    return records


def _record(use: str, point: Point) -> dict[str, Any]:
    return {
        "use": use,
        "cover": label(point),
        "share": point.share,
        "forwards": point.forwards,
        "seconds": point.seconds,
        "miou": 100 * miou(point),
    }


def _drawn(draws: Draws, point: Point, over: Sequence[int]) -> NDArray[np.float64]:
    return mean_iou(draws.confusions(point.confusion), over)


def miou(point: Point) -> float:
    total = point.confusion.sum(axis=0, keepdims=True)
    return float(mean_iou(total, range(total.shape[1]))[0])


def table(records: Records) -> str:
    columns = ("for", "cover", "share", "seconds", "mIoU", "to d = 1", "to best", "to random", "to gradient")
    rows = [
        (
            record["use"],
            record["cover"],
            f"{record['share']:.3f}",
            record["seconds"],
            f"{record['miou']:.2f}",
            *(_difference(record.get(f"to {name}")) for name in ("d = 1", "best", "random", "gradient")),
        )
        for record in records
    ]
    return (
        f"{markdown(columns, rows)}\n\n"
        "share: forwards over dense's, inner nodes counted; seconds: reading, forwarding and stitching, one thread. "
        "Differences in points with their paired intervals over blocks; best: the best of fixed scales and means. "
        "Details and thresholds come from the other folds' images, those of controls from these."
    )


def _difference(values: list[float] | None) -> str:
    return "" if values is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*values)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, default=CONFIG)
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"nodes lie here (default {CACHE})")


if __name__ == "__main__":
    try:
        run("adaptive", __doc__, measure_all, table, _arguments)
    except OptionInvalid as error:
        raise SystemExit(f"{error.message}. {error.hint}") from error

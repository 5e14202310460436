"""Plots of the numbers: scores, cost, resolutions, fields of view, calibration. Shares are in percent."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from model.evaluation.paper import PAPER
from model.evaluation.results import Results
from model.metrics import BINS

T = TypeVar("T")

__all__ = ["plot_all", "save", "style"]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's, told apart by colour-blind eyes; marks differ too."""
MARKS = "osD^vPX*"
_INCH = 0.32
_DPI = 150


def plot_all(results: Results, directory: Path) -> list[tuple[str, str]]:
    """Write every plot that there are numbers for; (file name, caption) of each."""
    plots: list[tuple[str, str, Callable[[Results], Figure], bool]] = [
        ("scores.png", "Mean IoU with intervals (Table 2).", _scores, True),
        ("classes.png", "IoU per class (Fig. 4, Tables B.2.x).", _classes, True),
        ("cost.png", "Mean IoU against forwards; lines join the inference resolutions.", _cost, True),
        ("resolutions.png", "Mean IoU against the inference step (Table B.5.1).", _resolutions, bool(results.sweep)),
        ("curve.png", "Mean IoU against field of view and rate (Fig. 2a).", _curve, results.scoring.config.curve),
        ("reliability.png", "Reliability over 15 bins.", _reliability, results.scoring.config.calibration),
    ]
    written = []
    for file, caption, plot, wanted in plots:
        if wanted:
            with style():
                save(plot(results), directory / file)
            written.append((file, caption))
    return written


def style() -> AbstractContextManager[None]:
    """A context: small type, light grid, the colours above, drawn without a display."""
    return mpl.rc_context(
        {
            "backend": "Agg",
            "font.size": 9,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=list(COLOURS)),
            "legend.frameon": False,
        }
    )


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", facecolor="white", metadata={"Software": None})


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _scores(results: Results) -> Figure:
    names = results.names[::-1]
    figure, axes = _figure(6.4, 1.2 + _INCH * len(names))
    paper = PAPER[results.scoring.config.paper].iou.rows if results.scoring.config.paper else {}
    for y, name in enumerate(names):
        mean = 100 * results.mean_iou(name)
        axes.plot(mean, y, "o", color=COLOURS[0], zorder=3)
        span = results.interval(name)
        if span is not None:
            axes.plot([100 * end for end in span], [y, y], color=COLOURS[0], linewidth=2, alpha=0.5)
        axes.annotate(f"{mean:.1f}", (mean, y), (0, 5), textcoords="offset points", ha="center", fontsize=7)
        published = paper.get(results.entry(name).role)
        if published is not None and published[0] is not None:
            axes.plot(published[0], y, "|", color=COLOURS[4], markersize=12, markeredgewidth=2)
    if paper:
        axes.plot([], [], "|", color=COLOURS[4], markeredgewidth=2, label="the paper, on its data")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.set_xlabel("mean IoU, %")
    return figure


def _classes(results: Results) -> Figure:
    names, classes = results.names, results.classes
    values = np.array([100 * results.pooled(name).counts.iou for name in names])
    for row, name in enumerate(names):
        values[row, results.pooled(name).counts.absent] = np.nan
    figure, axes = _figure(2.2 + 0.55 * len(classes), 1.4 + _INCH * len(names))
    shown = axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        text = "–" if np.isnan(value) else f"{value:.0f}"
        axes.text(column, row, text, ha="center", va="center", color="black" if value > 55 else "white", fontsize=7)
    axes.set_xticks(range(len(classes)), classes, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    figure.colorbar(shown, ax=axes, label="IoU, %")
    return figure


def _cost(results: Results) -> Figure:
    figure, axes = _figure(6.4, 4.2)
    for name, (colour, mark) in _dressed(results.names):
        swept = [point.score for point in results.sweep if point.name == name]
        points = [(score.forwards, score.counts.mean_iou(over=results.over)) for score in swept]
        if points:
            line = np.array(sorted(points))
            axes.plot(line[:, 0], 100 * line[:, 1], color=colour, marker=mark, markersize=4, linewidth=1, alpha=0.7)
        score = results.pooled(name)
        axes.plot(score.forwards, 100 * results.mean_iou(name), mark, color=colour, label=name, markersize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("forwards (patches through a network)")
    axes.set_ylabel("mean IoU, %")
    _legend(axes)
    return figure


def _resolutions(results: Results) -> Figure:
    figure, axes = _figure(6.4, 4.2)
    for name, (colour, mark) in _dressed(list(dict.fromkeys(point.name for point in results.sweep))):
        swept = [point for point in results.sweep if point.name == name]
        line = np.array(sorted((point.share, point.score.counts.mean_iou(over=results.over)) for point in swept))
        axes.plot(line[:, 0], 100 * line[:, 1], color=colour, marker=mark, label=name)
    shares = sorted({point.share for point in results.sweep})
    axes.set_xscale("log", base=2)
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_xlabel("step between locations, as a share of the smallest field of view")
    axes.set_ylabel("mean IoU, %")
    _legend(axes)
    return figure


def _curve(results: Results) -> Figure:
    figure, axes = _figure(6.4, 4.2)
    points: dict[float, list[tuple[int, float]]] = {}
    for name in results.names:
        entry = results.entry(name)
        if entry.is_fixed:
            side = entry.card.fovs[int(entry.role.removeprefix("fixed:")) - 1]
            points.setdefault(side / entry.card.patch_size, []).append((side, 100 * results.mean_iou(name)))
    for rate, (colour, mark) in _dressed(sorted(points)):
        line = np.array(sorted(points[rate]))
        axes.plot(line[:, 0], line[:, 1], color=colour, marker=mark, label=f"{rate:g} px per sample")
    axes.set_xlabel("field of view, px")
    axes.set_ylabel("mean IoU, %")
    _legend(axes)
    return figure


def _reliability(results: Results) -> Figure:
    figure = Figure(figsize=(6.4, 5.2))
    axes, share = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    axes.plot([0, 100], [0, 100], color="grey", linewidth=1, linestyle="--")
    for name, (colour, mark) in _dressed(results.names):
        found = results.pooled(name).reliability
        seen = found.pixels > 0
        confidence = 100 * found.confidence[seen] / found.pixels[seen]
        label = f"{name} (ECE {100 * found.expected_error:.1f})"
        accuracy = 100 * found.correct[seen] / found.pixels[seen]
        axes.plot(confidence, accuracy, color=colour, marker=mark, markersize=4, linewidth=1, label=label)
        middles = 100 * (np.arange(BINS) + 0.5) / BINS
        shares = 100 * found.pixels / max(1, found.pixels.sum())
        share.plot(middles, shares, color=colour, linewidth=1, drawstyle="steps-mid")
    axes.set_ylabel("accuracy, %")
    share.set_ylabel("pixels, %")
    share.set_xlabel("probability of the predicted class, %")
    _legend(axes)
    return figure


def _dressed(names: Sequence[T]) -> list[tuple[T, tuple[str, str]]]:
    """Each with its colour and mark; a colour that comes again has another mark."""
    marks = [MARKS[(k + k // len(COLOURS)) % len(MARKS)] for k in range(len(names))]
    return [(name, (COLOURS[k % len(COLOURS)], marks[k])) for k, name in enumerate(names)]


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

"""Pictures of single images: predictions beside labels (Fig. 4), foveation maps and the gold standard (Fig. 5, 6)."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from numpy.typing import NDArray

from foveate.schema import BundleCard, Rgb
from model.cells import thumbnail_step
from model.datasets.classes import IGNORE
from model.datasets.labelled import LabelledImage, open_labelled
from model.datasets.layouts import find_pairs
from model.evaluation.entries import Entry
from model.evaluation.figures import save, style
from model.evaluation.results import Results
from model.evaluation.scores import ImageScore, shrink_of
from model.metrics import foveation_map, normalised_map
from raster.geometry import Region, Size

__all__ = ["draw_all"]

_PANEL = 2.6
"""Inches."""
_IGNORED = (1.0, 1.0, 1.0)
_UPDATES, _ROWS, _SMALL = 6, 3, 1.8
"""Columns and rows of maps as training went on, and the width of one in inches."""


def draw_all(results: Results, directory: Path) -> list[tuple[str, str]]:
    """Write the pictures that the configuration asks for; (file name, caption) of each."""
    written = []
    for fold, name in _chosen(results):
        with style():
            written += _draw_image(results, fold, name, directory)
    for entry in results.scoring.entries:
        found = sorted(entry.maps.glob("*.png")) if entry.maps else []
        if found:
            file = f"training_maps_{_safe(entry.fold)}_{_safe(entry.name)}.png"
            with style():
                save(_montage(found), directory / file)
            written.append(
                (
                    file,
                    f"Foveation maps of {entry.name} ({entry.fold}) as training went on (Fig. B.4.4).",
                )
            )
    return written


def _chosen(results: Results) -> list[tuple[str, str]]:
    """(fold, image) of the first images, taken from the folds in turn."""
    queues = []
    for fold in results.folds:
        entry = next(entry for entry in results.scoring.entries if entry.fold == fold)
        queues.append([(fold, image.name) for image in results.scores[entry.name, fold].images])
    turns = [queue[k] for k in range(max(map(len, queues))) for queue in queues if k < len(queue)]
    return turns[: results.scoring.config.maps]


def _draw_image(results: Results, fold: str, name: str, directory: Path) -> list[tuple[str, str]]:
    entries = [entry for entry in results.scoring.entries if entry.fold == fold]
    scores = {entry.name: _image(results, entry, name) for entry in entries}
    first = entries[0]
    pair = next(pair for pair in find_pairs(first.data, results.scoring.config.split) if pair.name == name)
    with contextlib.closing(open_labelled(pair, first.data, first.card)) as image:
        picture, labels = _shown(image, first.card)
    file = f"examples_{_safe(fold)}_{_safe(name)}.png"
    save(_examples(picture, labels, scores, first.card, results.over), directory / file)
    written = [(file, f"Predictions for {name} (Fig. 4); the number is this image's mean IoU in percent.")]
    mapped = [entry for entry in entries if scores[entry.name].distribution is not None]
    if mapped:
        file = f"maps_{_safe(fold)}_{_safe(name)}.png"
        gold = _gold(results, name)
        save(
            _maps(picture, labels, {entry.name: scores[entry.name] for entry in mapped}, mapped[0], gold),
            directory / file,
        )
        written.append(
            (file, f"Foveation maps for {name} (Fig. 5 and 6): small fields of view dark, large ones bright.")
        )
    return written


def _image(results: Results, entry: Entry, name: str) -> ImageScore:
    return next(image for image in results.scores[entry.name, entry.fold].images if image.name == name)


def _gold(results: Results, name: str) -> dict[str, NDArray[np.float64]]:
    """Both gold standards of the image by mIoU, normalised; none where they were not asked for."""
    for found in results.gold_sets() if results.scoring.config.gold else []:
        if name in found.images:
            gold = found.gold[found.images.index(name)]
            return {rule: normalised_map(gold[rule, "mIoU"], found.bank) for rule in ("weighted", "argmax")}
    return {}


def _shown(image: LabelledImage, card: BundleCard) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """The image as red, green and blue in 0..1, and its labels, at the size of the small masks."""
    shrink = shrink_of(image.size)
    size = Size(-(-image.size.width // shrink), -(-image.size.height // shrink))
    window = Region(0, 0, size.width * shrink, size.height * shrink)
    values = image.pixels(window, size)
    rgb = _as_rgb(values, card)
    return rgb, image.labels(window, size)


def _as_rgb(values: NDArray[Any], card: BundleCard) -> NDArray[np.float64]:
    bands = card.input.bands
    named = [bands.index(band) for band in ("red", "green", "blue") if band in bands]
    chosen = named if len(named) == 3 else [0, 0, 0]
    rgb: NDArray[np.float64] = np.clip(values[..., chosen].astype(np.float64) / card.input.value_scale, 0, 1)
    return rgb


def _examples(
    picture: NDArray[np.float64],
    labels: NDArray[np.uint8],
    scores: dict[str, ImageScore],
    card: BundleCard,
    over: Sequence[int],
) -> Figure:
    panels: list[tuple[str, NDArray[Any]]] = [("image", picture), ("labels", _painted(labels, card))]
    for name, score in scores.items():
        panels.append((f"{name}: {100 * score.counts.mean_iou(over=over):.1f}", _painted(score.mask, card)))
    figure, axes = _grid(len(panels), picture)
    for place, (title, shown) in zip(axes, panels, strict=False):
        place.imshow(shown, interpolation="nearest")
        place.set_title(title)
    patches = [Patch(color=_colour(entry.color), label=entry.name) for entry in card.classes]
    patches.append(Patch(facecolor=_IGNORED, edgecolor="grey", label="not labelled"))
    figure.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(6, len(patches)))
    return figure


def _maps(
    picture: NDArray[np.float64],
    labels: NDArray[np.uint8],
    scores: dict[str, ImageScore],
    entry: Entry,
    gold: dict[str, NDArray[np.float64]],
) -> Figure:
    bank, card = entry.card.fovs, entry.card
    shrink = shrink_of(next(iter(scores.values())).size)
    shown: list[tuple[str, NDArray[Any], NDArray[np.float64] | None]]
    shown = [("image", picture, None), ("labels", _painted(labels, card), None)]
    shown += [(f"gold standard, {rule}", picture, values) for rule, values in gold.items()]
    for name, score in scores.items():
        assert score.distribution is not None
        shown.append((f"{name}: map", picture, normalised_map(foveation_map(score.distribution, bank), bank)))
        shown.append((f"{name}: prediction", _painted(score.mask, card), None))
    figure, axes = _grid(len(shown), picture)
    heat: AxesImage | None = None
    for place, (title, base, values) in zip(axes, shown, strict=False):
        place.set_title(title)
        if values is None:
            place.imshow(base, interpolation="nearest")
            continue
        # Pale, so that what is dark in the image does not look like a small field of view.
        place.imshow(0.6 + 0.4 * base.mean(axis=2), cmap="gray", vmin=0, vmax=1)
        place.set_xlim(0, base.shape[1])
        place.set_ylim(base.shape[0], 0)
        # On a lattice the last locations may hang over the border; what hangs over is cut.
        across, down = _covered(entry, base, values, shrink)
        heat = place.imshow(
            values, cmap="viridis", vmin=0, vmax=1, alpha=0.7, extent=(0, across, down, 0), interpolation="nearest"
        )
    if heat is not None:
        bar = figure.colorbar(heat, ax=list(axes), shrink=0.6, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels([f"{bank[0]} px", f"{(bank[0] + bank[-1]) / 2:g}", f"{bank[-1]} px"])
        bar.set_label("mean field of view")
    return figure


def _covered(entry: Entry, picture: NDArray[Any], values: NDArray[np.float64], shrink: int) -> tuple[float, float]:
    """Width and height, in pixels of the picture, of what the locations of `values` stand for."""
    height, width = picture.shape[:2]
    if entry.geometry != "lattice":
        return width, height
    step = thumbnail_step(entry.card)
    return values.shape[1] * step / shrink, values.shape[0] * step / shrink


def _montage(files: Sequence[Path]) -> Figure:
    """Maps named IMAGE-UPDATE: a row an image, a few updates from first to last in each."""
    images = list(dict.fromkeys(file.stem.partition("-")[0] for file in files))[:_ROWS]
    rows = [[file for file in files if file.stem.partition("-")[0] == image] for image in images]
    across = min(_UPDATES, max(map(len, rows)))
    first = matplotlib.image.imread(rows[0][0])
    tall = _SMALL * min(2.5, first.shape[0] / first.shape[1])
    figure = Figure(figsize=(_SMALL * across, (tall + 0.3) * len(rows)), layout="constrained")
    places = np.asarray(figure.subplots(len(rows), across, squeeze=False))
    for axes, row in zip(places, rows, strict=True):
        for place, k in zip(axes, np.linspace(0, len(row) - 1, across).round().astype(int), strict=True):
            place.imshow(matplotlib.image.imread(row[k]), interpolation="nearest")
            place.set_title(f"update {int(row[k].stem.partition('-')[2])}", fontsize=8)
            place.set_axis_off()
    return figure


def _grid(count: int, like: NDArray[Any]) -> tuple[Figure, list[Axes]]:
    across = min(count, 3 if count <= 6 else 4)
    down = -(-count // across)
    tall = _PANEL * min(2.5, like.shape[0] / like.shape[1])
    figure = Figure(figsize=(_PANEL * across, (tall + 0.35) * down), layout="constrained")
    axes = np.atleast_1d(figure.subplots(down, across)).ravel().tolist()
    for place in axes:
        place.set_axis_off()
    return figure, axes


def _painted(channels: NDArray[np.uint8], card: BundleCard) -> NDArray[np.float64]:
    """Channel indices in their classes' colours."""
    table = np.tile(np.array(_IGNORED), (256, 1))
    for channel, entry in enumerate(card.classes):
        table[channel] = _colour(entry.color)
    table[IGNORE] = _IGNORED
    return table[channels]


def _colour(color: Rgb) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _safe(name: str) -> str:
    """For file names."""
    name = str(Path(name).with_suffix("")) if Path(name).suffix else name
    return "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name).strip("_")

"""Tables: the same rows as Markdown for the report and as CSV for whoever goes on with them. Shares are in percent."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.evaluation.foveation import GOLD_RULES, constant_maps, distances, random_maps
from model.evaluation.objects import MINIMUM
from model.evaluation.paper import PAPER, DataSet, PaperTable
from model.evaluation.results import GoldSet, Results
from model.metrics import BINS, ClassCounts

__all__ = ["Cell", "Table", "all_tables", "paper_tables"]

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """`digits` after the point in Markdown; CSV keeps four."""

    name: str
    """Of the CSV file, without `.csv`."""
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    notes: tuple[str, ...] = ()
    digits: int = 1

    def markdown(self) -> str:
        lines = [f"| {' | '.join(self.columns)} |", f"|{'---|' * len(self.columns)}"]
        lines += [f"| {' | '.join(self._spelled(cell) for cell in row)} |" for row in self.rows]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"### {self.title}", "", *lines, *notes, ""])

    def write(self, directory: Path) -> None:
        with (directory / f"{self.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            writer.writerows([_exact(cell) for cell in row] for row in self.rows)

    def _spelled(self, cell: Cell) -> str:
        if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
            return "–"
        return f"{cell:.{self.digits}f}" if isinstance(cell, float) else str(cell)


def all_tables(results: Results) -> list[Table]:
    """Every table that the evaluation has numbers for."""
    config = results.scoring.config
    tables = [_scores(results), *_by_class(results), *_differences(results)]
    tables += [_by_fold(results)] if len(results.folds) > 1 else []
    tables += [_by_image(results)]
    tables += _foveation(results) if config.gold else []
    tables += _resolutions(results) if results.sweep else []
    tables += [_curve(results)] if config.curve else []
    tables += _objects(results) if config.objects else []
    tables += _calibration(results) if config.calibration else []
    return tables


def paper_tables(results: Results) -> list[Table]:
    """The paper's own tables for the data set that the configuration names."""
    name = results.scoring.config.paper
    if name is None:
        return []
    paper = PAPER[name]
    found = [table for table in (paper.iou, paper.recall, paper.resolutions) if table is not None]
    return [*(_of_paper(table, k, paper) for k, table in enumerate(found))]


def _scores(results: Results) -> Table:
    paper = _paper_miou(results)
    columns = ["model", "images", "mIoU", "low", "high", "accuracy", *results.classes, "forwards", "seconds"]
    rows: list[tuple[Cell, ...]] = []
    for name in results.names:
        score = results.pooled(name)
        counts = score.counts
        low, high = results.interval(name) or (None, None)
        means = (_percent(counts.mean_iou(over=results.over)), _percent(low), _percent(high), _percent(counts.accuracy))
        cost = score.forwards, float(score.seconds)
        published = (paper.get(results.entry(name).role),) if paper else ()
        rows.append((name, len(score.images), *means, *_percents(counts.iou, counts), *cost, *published))
    columns += ["paper mIoU"] if paper else []
    notes = [_absent_note(results), _average_note(results), _interval_note(results)]
    return Table(
        "scores",
        "IoU per class, pooled over the set (Table 2), with the cost",
        tuple(columns),
        rows,
        tuple(note for note in notes if note),
    )


def _by_class(results: Results) -> list[Table]:
    def rows(values: str) -> list[tuple[Cell, ...]]:
        found: list[tuple[Cell, ...]] = []
        for name in results.names:
            counts = results.pooled(name).counts
            each = {"recall": counts.recall, "dice": counts.dice}[values]
            known = np.flatnonzero(counts.label > 0) if values == "recall" else np.flatnonzero(counts.union > 0)
            kept = [k for k in results.over if k in known]
            mean = float(each[kept].mean()) if kept else None
            found.append((name, _percent(mean), *(_percent(v) if k in known else None for k, v in enumerate(each))))
        return found

    columns = ("model", "mean", *results.classes)
    return [
        Table("recall", "Class recall (Table B.2.3)", columns, rows("recall")),
        Table("dice", "Dice per class", columns, rows("dice")),
    ]


def _differences(results: Results) -> list[Table]:
    reference = results.reference
    if reference is None or len(results.names) < 2:
        return []
    rows: list[tuple[Cell, ...]] = []
    for name in results.names:
        if name != reference:
            gap, span = results.difference(name, reference)
            rows.append((name, _percent(gap), *((_percent(v) for v in span) if span else (None, None))))
    chosen = results.scoring.config.reference is None
    note = f"{reference} is the best fixed model on these very images, which favours it." if chosen else ""
    return [
        Table(
            "differences",
            f"Difference of mIoU to {reference}, paired, in points",
            ("model", "difference", "low", "high"),
            rows,
            tuple(text for text in (_interval_note(results), note) if text),
        )
    ]


def _by_fold(results: Results) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (name, fold, _percent(results.scores[name, fold].counts.mean_iou(over=results.over)))
        for name in results.names
        for fold in results.folds_of(name)
    ]
    return Table("folds", "mIoU by fold", ("model", "fold", "mIoU"), rows)


def _by_image(results: Results) -> Table:
    columns = ("model", "fold", "image", "mIoU", "accuracy", *results.classes, "forwards", "seconds")
    rows: list[tuple[Cell, ...]] = []
    for (name, fold), score in results.scores.items():
        for image in score.images:
            counts = image.counts
            row = (name, fold, image.name, _percent(counts.mean_iou(over=results.over)), _percent(counts.accuracy))
            rows.append((*row, *_percents(counts.iou, counts), image.forwards, float(image.seconds)))
    return Table("images", "IoU per image", columns, rows)


def _foveation(results: Results) -> list[Table]:
    return [_gold_table(results, gold, k) for k, gold in enumerate(results.gold_sets())]


def _gold_table(results: Results, gold: GoldSet, number: int) -> Table:
    controls = [*constant_maps(gold.gold, gold.bank)]
    controls += [("random", random_maps(gold.gold, gold.bank, seed=304))]
    paper = PAPER[results.scoring.config.paper].mse if results.scoring.config.paper else {}
    rows: list[tuple[Cell, ...]] = []
    for name, maps in [*gold.maps.items(), *controls]:
        found = distances(maps, gold.gold, gold.bank)
        cells = [cell for rule in GOLD_RULES for cell in (found[rule].mean, found[rule].std)]
        published = paper.get(results.entry(name).role) if name in gold.maps else None
        rows.append((name, *cells, f"{published[0]:.3f} ± {published[1]:.3f}") if published else (name, *cells, None))
    columns = ["map", *(f"{rule} by {measure}{end}" for rule, measure in GOLD_RULES for end in ("", " std"))]
    notes = (
        f"Means and standard deviations over {len(gold.images)} images. The best constant is fitted to the gold "
        "standard by mIoU, weighted: it knows the answer's mean and nothing of its place.",
    )
    suffix = f"_{number + 1}" if number else ""
    return Table(
        f"foveation{suffix}",
        f"MSE between foveation map and gold standard (Table 3), bank {', '.join(map(str, gold.bank))} px",
        (*columns, "paper"),
        rows,
        notes,
        digits=3,
    )


def _resolutions(results: Results) -> list[Table]:
    rows: list[tuple[Cell, ...]] = [
        (
            point.name,
            f"{point.share:g}",
            point.step,
            _percent(point.score.counts.mean_iou(over=results.over)),
            point.score.forwards,
            float(point.score.seconds),
        )
        for point in results.sweep
    ]
    return [
        Table(
            "resolutions",
            "mIoU against the inference step (Table B.5.1)",
            ("model", "share of the smallest field of view", "step in px", "mIoU", "forwards", "seconds"),
            rows,
            ("On a lattice the step is rounded down to what keeps all patches of one field of view on one grid.",),
        )
    ]


def _curve(results: Results) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in results.names:
        entry = results.entry(name)
        if entry.is_fixed:
            side = entry.card.fovs[int(entry.role.removeprefix("fixed:")) - 1]
            rate = side / entry.card.patch_size
            rows.append((name, side, f"{rate:g}", entry.card.patch_size, _percent(results.mean_iou(name))))
    return Table(
        "curve",
        "mIoU by field of view and rate (Fig. 2a)",
        ("model", "field of view in px", "px per sample", "patch in samples", "mIoU"),
        rows,
    )


def _objects(results: Results) -> list[Table]:
    rows: list[tuple[Cell, ...]] = []
    for name in results.names:
        score = results.pooled(name)
        if score.objects is not None:
            found, each = score.objects, [image.objects for image in score.images if image.objects is not None]
            dice, f1 = (float(np.nanmean([getattr(one, key) for one in each])) for key in ("dice", "f1"))
            row = (name, _percent(found.dice), _percent(found.f1), _percent(dice), _percent(f1))
            rows.append((*row, found.found, found.spurious, found.missed))
    if not rows:
        return []
    columns = ("model", "object Dice", "object F1", "Dice per image", "F1 per image", "found", "spurious", "missed")
    note = (
        "Definitions of the GlaS challenge. Predicted objects are 8-connected components of the class, those under "
        f"{MINIMUM} px dropped, holes not filled. The first two columns pool all objects of the set, the next two are "
        "means over images."
    )
    return [Table("objects", "Objects", columns, rows, (note,))]


def _calibration(results: Results) -> list[Table]:
    rows: list[tuple[Cell, ...]] = []
    bins: list[tuple[Cell, ...]] = []
    for name in results.names:
        found = results.pooled(name).reliability
        rows.append((name, _percent(found.expected_error)))
        for k in range(BINS):
            pixels = int(found.pixels[k])
            means = (found.confidence[k] / pixels, found.correct[k] / pixels) if pixels else (None, None)
            bins.append((name, k / BINS, (k + 1) / BINS, pixels, *(_percent(value) for value in means)))
    return [
        Table("calibration", f"Expected calibration error, {BINS} bins", ("model", "ECE"), rows, digits=2),
        Table(
            "reliability", "Reliability", ("model", "from", "to", "pixels", "confidence", "accuracy"), bins, digits=2
        ),
    ]


def _of_paper(table: PaperTable, number: int, paper: DataSet) -> Table:
    rows: list[tuple[Cell, ...]] = [(name, *values) for name, values in table.rows.items()]
    notes = (*table.notes, *(paper.cautions if number == 0 else ()))
    return Table(f"paper_{number + 1}", f"The paper: {table.title}", ("model", *table.columns), rows, notes)


def _paper_miou(results: Results) -> dict[str, float | None]:
    name = results.scoring.config.paper
    return {} if name is None else {role: row[0] for role, row in PAPER[name].iou.rows.items()}


def _absent_note(results: Results) -> str:
    absent = {results.classes[k] for name in results.names for k in results.pooled(name).counts.absent}
    return (
        f"In neither prediction nor label, so left out where marked –: {', '.join(sorted(absent))}." if absent else ""
    )


def _average_note(results: Results) -> str:
    over = results.scoring.config.mean_over
    return f"The class average is over {', '.join(over)}." if over else ""


def _interval_note(results: Results) -> str:
    config = results.scoring.config.bootstrap
    if config is None:
        return ""
    units = "images" if config.block is None else f"blocks of {config.block} px within each image"
    return (
        f"low, high: {100 * config.level:g} % percentile interval over {config.draws} draws of {units}; it covers the "
        "choice of pixels to score, not that of training data or seed."
    )


def _percents(values: NDArray[np.float64], counts: ClassCounts) -> Sequence[Cell]:
    return [None if k in counts.absent else _percent(value) for k, value in enumerate(values.tolist())]


def _percent(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else 100 * float(value)


def _exact(cell: Cell) -> Cell:
    if isinstance(cell, float):
        return round(cell, 4) if math.isfinite(cell) else None
    return cell

"""The directory that an evaluation leaves: report.md, scores.json, a CSV file per table, and figures."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveate import __version__
from model.evaluation.bootstrap import Interval
from model.evaluation.coverage_report import Judged, coverage_json, coverage_table
from model.evaluation.entries import Entry
from model.evaluation.figures import plot_all
from model.evaluation.pictures import draw_all
from model.evaluation.results import Results
from model.evaluation.scores import EntryScore, by_class, rounded
from model.evaluation.tables import all_tables, paper_tables

__all__ = ["machine", "scores_json", "write_report"]


def write_report(
    results: Results, directory: Path, command: str, device: torch.device, curves: Mapping[str, Sequence[Judged]]
) -> None:
    """Write all files into `directory`, which exists. `curves` of adaptive coverage by network, empty: not measured."""
    tables, published = all_tables(results), paper_tables(results)
    tables += [coverage_table(name, judged, results.classes) for name, judged in curves.items()]
    for table in [*tables, *published]:
        table.write(directory)
    figures = [*plot_all(results, directory), *draw_all(results, directory)]
    document = {**scores_json(results, curves), "command": command, "machine": machine(device)}
    (directory / "scores.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    # Long lists of single images and bins are for programs; the report names their files.
    shown = [table for table in tables if table.name not in ("images", "reliability")]
    parts = [
        _opening(results, command, device),
        *(table.markdown() for table in [*shown, *published]),
        "Every table is a CSV file of its name; `images.csv` has every image, `scores.json` everything.\n",
        *(f"![{caption}]({file})\n\n{caption}\n" for file, caption in figures),
    ]
    (directory / "report.md").write_text("\n".join(parts), encoding="utf-8")


def scores_json(results: Results, curves: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
    """Everything that was measured, as plain JSON values; shares in 0..1, null where undefined."""
    scoring = results.scoring
    return {
        "name": scoring.name,
        "foveate": __version__,
        "settings": scoring.config.model_dump(mode="json"),
        "classes": results.classes,
        "missing": scoring.missing,
        "reference": results.reference,
        "models": {name: _model_json(results, name) for name in results.names},
        "coverage": {name: coverage_json(judged) for name, judged in curves.items()},
        "resolutions": [
            {
                "model": point.name,
                "share": point.share,
                "step": point.step,
                "miou": rounded(point.score.counts.mean_iou(over=results.over)),
                "forwards": point.score.forwards,
                "seconds": round(point.score.seconds, 1),
            }
            for point in results.sweep
        ],
    }


def machine(device: torch.device) -> str:
    """What the seconds were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__} with {torch.get_num_threads()} threads"


def _processor() -> str:
    """The CPU's name, where Linux tells it; `platform` knows the architecture alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _model_json(results: Results, name: str) -> dict[str, Any]:
    entry, score = results.entry(name), results.pooled(name)
    counts, objects = score.counts, score.objects
    values: dict[str, Any] = {
        "policy": entry.role,
        "geometry": entry.geometry,
        "bundles": {e.fold: [str(part.bundle) for part in e.parts] for e in results.scoring.entries if e.name == name},
        "miou": rounded(counts.mean_iou(over=results.over)),
        "interval": _interval_json(results.interval(name)),
        "accuracy": rounded(counts.accuracy) if counts.judged else None,
        "iou": by_class(counts, counts.iou, results.classes),
        "recall": by_class(counts, np.where(counts.label > 0, counts.recall, np.nan), results.classes),
        "dice": by_class(counts, counts.dice, results.classes),
        "ece": rounded(score.reliability.expected_error),
        "forwards": score.forwards,
        "seconds": round(score.seconds, 1),
        "patches_by_fov": score.patches_by_fov,
        "confusion": score.confusion.sum(axis=0).tolist(),
        "images": _images_json(results, score),
    }
    if objects is not None:
        values |= {"object_dice": rounded(objects.dice), "object_f1": rounded(objects.f1)}
    reference = results.reference
    if reference is not None and name != reference:
        gap, span = results.difference(name, reference)
        values["difference"] = {"miou": rounded(gap), "interval": _interval_json(span)}
    return values


def _images_json(results: Results, score: EntryScore) -> dict[str, Any]:
    return {
        image.name: {
            "size": [image.size.width, image.size.height],
            "miou": rounded(image.counts.mean_iou(over=results.over)),
            "accuracy": rounded(image.counts.accuracy) if image.counts.judged else None,
            "forwards": image.forwards,
            "seconds": round(image.seconds, 1),
        }
        for image in score.images
    }


def _interval_json(span: Interval | None) -> list[float | None] | None:
    return None if span is None else [rounded(end) for end in span]


def _opening(results: Results, command: str, device: torch.device) -> str:
    scoring = results.scoring
    first = [next(entry for entry in scoring.entries if entry.fold == fold) for fold in results.folds]
    images = [image.name for entry in first for image in results.scores[entry.name, entry.fold].images]
    lines = [
        f"# Evaluation of {scoring.name}",
        "",
        f"`{command}`, {datetime.now(UTC).date().isoformat()}, Foveate {__version__}. {machine(device)}.",
        "",
        f"{len(images)} labelled images of the {scoring.config.split} split: {_listed(images)}.",
        f"{_sampling(results)} Scores are in percent; measures are pooled over all pixels of the set; ignored pixels "
        "are left out. Seconds are wall time of reading and forwarding.",
    ]
    if scoring.missing:
        lines += ["", f"**Not scored, because its training is not finished:** {', '.join(scoring.missing)}."]
    return "\n".join([*lines, ""])


def _sampling(results: Results) -> str:
    geometries = {entry.geometry for entry in results.scoring.entries}
    config = results.scoring.config
    spelled = []
    if "lattice" in geometries:
        spelled.append(f"lattice with an overlap of {config.overlap:g}")
    for other in sorted(geometries - {"lattice"}):
        spelled.append(f"{other} with a step of {_step(results.scoring.entries[0], config.step)} px")
    return f"Geometry: {', '.join(spelled)}."


def _step(entry: Entry, step: int | None) -> int:
    return entry.card.patch_size if step is None else step


def _listed(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

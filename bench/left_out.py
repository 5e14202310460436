"""What F_theta's choice is worth on images that F_theta never learned from, before any test image is touched.

    make bench NAME=left_out        or        python -m bench.left_out [CONFIG] [--model NAME]

CONFIG is a recipe or an experiment of staged training (default: examples/method/landcover.yaml, `no-scale`). Of each
finished run the measured costs of all fields of view are taken; F_theta is trained anew without one image's places (or
an eighth of the images), and chooses there. Its objective, mean IoU or loss, is pooled over the images left out, and
over what was learned from, the mean over trainings. A margin is added to the logit of the best single field of view:
how much surer F_theta has to be to choose another. `training.foveation.margin: cross_validated` takes the best.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.report import ROOT, Records, markdown
from bench.runner import run
from model.experiment import Run, read_experiment
from model.training.checkpoints import Checkpoints
from model.training.config import FoveationSchedule, Staged
from model.training.fit_foveation import best_alone, fit_foveation, log_probabilities, quality
from model.training.margin import MARGINS, choose, parts_left_out
from model.training.measure import Measured

CONFIG = ROOT / "examples" / "method" / "landcover.yaml"


def measure(asked: argparse.Namespace) -> Records:
    experiment = read_experiment(asked.config)
    runs = [run for run in experiment.runs if experiment.plain or run.model == asked.model]
    finished = [run for run in runs if (run.config.run / "bundle").exists()]
    if not finished:
        raise SystemExit(f"{asked.config} is not trained. Run `foveate train {asked.config}` first.")
    return [record for run in finished for record in measure_run(run)]


def measure_run(run: Run) -> Records:
    """One record for each margin."""
    measured, schedule = places_of(run)
    N, D = measured.losses.shape
    best = best_alone(measured, schedule)
    outside_ND, inside = torch.empty(N, D), list[tuple[Measured, Tensor]]()
    for left_out_N in parts_left_out(measured):
        learned = measured.at(~left_out_N)
        module = fit_foveation(learned, run.config)
        outside_ND[left_out_N] = log_probabilities(module, measured.at(left_out_N))
        inside.append((learned, log_probabilities(module, learned)))
    records: Records = []
    for margin in MARGINS:
        chosen = choose(outside_ND, best, margin)
        learned_from = [quality(part, choose(told, best, margin), schedule) for part, told in inside]
        records.append(
            {
                "fold": run.fold,
                "places": N,
                "objective": schedule.objective,
                "fixed": [quality(measured, torch.full((N,), d), schedule) for d in range(D)],
                "margin": margin,
                "left_out": quality(measured, chosen, schedule),
                "learned": float(np.mean(learned_from)),
                "other": float((chosen != best).float().mean()),
            }
        )
    return records


def places_of(run: Run) -> tuple[Measured, FoveationSchedule]:
    """What the run measured for F_theta, and how that learns from it."""
    state = Checkpoints(run.config.run / "measured.pt", run.config.checkpoint_minutes).load()
    if state is None or not isinstance(run.config.training, Staged) or run.config.training.foveation is None:
        raise SystemExit(f"{run.config.run} has no measured.pt: it was not trained in stages, with F_theta, here.")
    return Measured.joined([Measured(**part) for part in state["parts"]]), run.config.training.foveation


def table(records: Records) -> str:
    rows = [
        (
            record["fold"],
            record["places"],
            record["objective"],
            ", ".join(_shown(record, value) for value in record["fixed"]),
            f"{record['margin']:g}",
            _shown(record, record["left_out"]),
            _shown(record, record["learned"]),
            f"{record['other']:.0%}",
        )
        for record in records
    ]
    columns = (
        *("fold", "places", "objective", "each field of view alone"),
        *("margin", "left out", "learned from", "chosen otherwise"),
    )
    return markdown(columns, rows)


def _shown(record: dict[str, object], value: float) -> str:
    return f"{100 * value:.1f}" if record["objective"] == "mean_iou" else f"{-value:.3f}"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, default=CONFIG)
    parser.add_argument("--model", default="no-scale", metavar="NAME", help="of an experiment")


if __name__ == "__main__":
    run("left_out", __doc__, measure, table, _arguments)

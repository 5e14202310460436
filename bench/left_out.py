"""What F_theta's choice is worth on images that F_theta never learned from, before any test image is touched.

    make bench NAME=left_out        or        python -m bench.left_out [CONFIG] [--model NAME]

CONFIG is an experiment whose nets were trained in stages (default: examples/method/landcover.yaml, `no-scale`). Of each
finished run the measured costs of all fields of view are taken; F_theta is trained anew without one image's places, and
chooses there. The mean IoU is pooled over the images left out, and over what was learned from, the mean over trainings.
A margin is added to the logit of the best single field of view: how much surer F_theta has to be to choose another.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.report import ROOT, Records, markdown
from bench.runner import run
from model.experiment import Run, read_experiment
from model.metrics import ClassCounts
from model.training.begin import survey
from model.training.checkpoints import Checkpoints
from model.training.fit_foveation import fit_foveation
from model.training.measure import REACH, HeldOut, Measured

CONFIG = ROOT / "examples" / "method" / "landcover.yaml"
MARGINS = (0.0, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Choice:
    """What F_theta says (N, D, as logarithms) at places with these `confusions` (N, D, K, K)."""

    logits: Tensor
    confusions: Tensor

    def taken(self, best: int, margin: float) -> tuple[Tensor, Tensor]:
        """(N,) the fields of view that are chosen, and (N, K, K) their confusions."""
        raised = self.logits.clone()
        raised[:, best] += margin
        chosen = raised.argmax(dim=1)
        return chosen, self.confusions[torch.arange(len(chosen)), chosen]


def measure(asked: argparse.Namespace) -> Records:
    runs = [run for run in read_experiment(asked.config).runs if run.model == asked.model]
    finished = [run for run in runs if (run.config.run / "bundle").exists()]
    if not finished:
        raise SystemExit(f"{asked.config}: {asked.model} is not trained. Run `foveate train {asked.config}` first.")
    return [record for run in finished for record in measure_run(run)]


def measure_run(run: Run) -> Records:
    """One record for each margin."""
    measured, images = places_of(run)
    fixed = [_miou(confusions) for confusions in measured.confusions.unbind(dim=1)]
    best = int(np.argmax(fixed))
    pairs = [_trained_without(run, measured, images == image) for image in images.unique()]
    records: Records = []
    for margin in MARGINS:
        outside = [left_out.taken(best, margin) for left_out, _ in pairs]
        chosen = torch.cat([choices for choices, _ in outside])
        records.append(
            {
                "fold": run.fold,
                "places": len(images),
                "fixed": fixed,
                "margin": margin,
                "left_out": _miou(torch.cat([confusions for _, confusions in outside])),
                "learned": float(np.mean([_miou(learned.taken(best, margin)[1]) for _, learned in pairs])),
                "other": float((chosen != best).float().mean()),
            }
        )
    return records


def places_of(run: Run) -> tuple[Measured, Tensor]:
    """What the run measured, and (N,) the image that each place lies in."""
    held_out = HeldOut(survey(run.config), run.config)
    state = Checkpoints(run.config.run / "measured.pt", run.config.checkpoint_minutes).load()
    if state is None:
        raise SystemExit(f"{run.config.run} has no measured.pt: it was not trained in stages, with F_theta, here.")
    parts = [Measured(**part) for part in state["parts"]]
    images = [
        torch.full((len(part.losses),), held_out.image_of(key)) for key, part in zip(held_out.keys, parts, strict=True)
    ]
    return Measured.joined(parts), torch.cat(images)


def _trained_without(run: Run, measured: Measured, left_out: Tensor) -> tuple[Choice, Choice]:
    """What F_theta, trained without them, says at the places left out, and at the others."""
    module = fit_foveation(measured.at(~left_out), run.config)
    module.log_probabilities = True
    found = []
    for part in (measured.at(left_out), measured.at(~left_out)):
        with torch.inference_mode():
            found.append(Choice(module(part.glimpses, part.inside)[:, :, REACH, REACH], part.confusions))
    return found[0], found[1]


def _miou(confusions: Tensor) -> float:
    return 100 * ClassCounts.of_confusion(confusions.sum(dim=0).numpy()).mean_iou()


def table(records: Records) -> str:
    rows = [
        (
            record["fold"],
            record["places"],
            ", ".join(f"{value:.1f}" for value in record["fixed"]),
            f"{record['margin']:g}",
            f"{record['left_out']:.1f}",
            f"{record['learned']:.1f}",
            f"{record['other']:.0%}",
        )
        for record in records
    ]
    columns = ("fold", "places", "each field of view alone", "margin", "left out", "learned from", "chosen otherwise")
    return markdown(columns, rows)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, default=CONFIG)
    parser.add_argument("--model", default="no-scale", metavar="NAME")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run("left_out", __doc__, measure, table, _arguments)

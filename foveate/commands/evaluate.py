"""`foveate evaluate CONFIG`: scores, maps and figures of trained models on labelled images."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from foveate.options import DeviceOption
from foveate.output import JsonFlag, print_result
from foveate.progress import show_progress
from foveate.resolve import resolve


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="An experiment, a recipe, or a YAML file with `bundles` and `data` (docs/evaluate.md).",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the report goes; default: evaluation/NAME.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output directory.")] = False,
    device: DeviceOption = "auto",
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="DIR", help="Bundle whose card takes the curve of adaptive coverage."),
    ] = None,
    no_coverage: Annotated[
        bool, typer.Option("--no-coverage", help="Leave the curves of adaptive coverage out: they take longest.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Score trained models on labelled images. Tables, figures, foveation maps, and the paper's numbers beside ours.

    Relative paths in CONFIG begin in the current directory.
    """
    # Torch's threads spin while they wait; on a machine that is not theirs alone that costs several times the work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = shlex.join(["foveate", *sys.argv[1:]])
    with show_progress("evaluate") as report:
        found = resolve("model.evaluation.run:evaluate")(
            config,
            out,
            overwrite=overwrite,
            device=device,
            command=command,
            store=store,
            coverage=not no_coverage,
            report=report,
        )
    lines = [f"{name:24} mIoU {_percent(model['miou'])}" for name, model in found.scores["models"].items()]
    lines += [f"not finished: {name}" for name in found.missing]
    print_result(
        {"directory": str(found.directory), **found.scores},
        "\n".join([*lines, str(found.directory / "report.md")]),
        as_json,
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"

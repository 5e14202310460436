"""`foveate train CONFIG`: from a recipe, or an experiment of many, to bundles."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from foveate.resolve import resolve


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", help="A recipe such as examples/tiny/training.yaml, or an experiment of several."
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="RUN", help="Run to train, as FOLD, MODEL or FOLD/MODEL; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the bundles and their scores as JSON.")] = False,
) -> None:
    """Train bundles from a recipe or an experiment. The same command goes on where an interrupted one stopped.

    Relative paths in CONFIG begin in the current directory.
    """
    # Torch's threads spin while they wait; on a machine that is not theirs alone that costs several times the work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with _log_on_stderr():
        runs = resolve("model.training.train:train")(config, only)
    if as_json:
        found = [{"run": r.name, "bundle": str(r.bundle.directory), "scores": r.scores} for r in runs]
        typer.echo(json.dumps(found, indent=2))
        return
    for run in runs:
        typer.echo(f"{run.name}: {run.bundle.directory}")
        for policy, score in run.scores.get("policies", {}).items():
            miou = "undefined" if score["miou"] is None else f"{100 * score['miou']:.1f} %"
            typer.echo(f"  {policy:10} mIoU {miou}")


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("model")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)

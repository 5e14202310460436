"""`foveate train CONFIG`: from a recipe to a bundle."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from foveate.engine import engine

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    config: Annotated[Path, typer.Argument(help="The recipe, a YAML file such as bundles/landcover/training.yaml.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Train a bundle from a recipe; the same command goes on where an interrupted one stopped."""
    # Torch's threads spin while they wait; on a machine that is not theirs alone that costs several times the work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with _log_on_stderr():
        trained = engine("model.training.train:train")(config)
    if as_json:
        typer.echo(json.dumps({"bundle": str(trained.bundle.directory), "scores": trained.scores}, indent=2))
        return
    typer.echo(f"{trained.bundle.card.name} {trained.bundle.card.version}: {trained.bundle.directory}")
    for policy, score in trained.scores["policies"].items():
        typer.echo(f"{policy:10} mIoU {100 * score['miou']:.1f} %  patches by field of view {score['patches_by_fov']}")


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

"""What a crash costs: a job is killed half way and run again, and every forward of both runs is counted.

    make bench NAME=resume [SIZE=2048]

The first run kills itself with SIGKILL after half of its forwards, as a crash or the kernel would; the second is the
same command. Whether the masks are the same bytes stands beside what was forwarded twice.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
from ctypes import c_longlong
from pathlib import Path
from threading import Lock
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import worker.pipeline
from bench.engine import run as segment
from bench.images import FULL_SIDE, scene
from bench.models import SHIPPED
from bench.report import Records, markdown
from bench.runner import run
from model.bundle import Bundle, load_bundle
from model.predictor import PatchBatch, Predictor
from worker.spec import JobSpec

ASKED = ({"coverage": "dense"}, {"coverage": "planned"}, {"coverage": "refined"})
TARGET = 0.05
_MASK = "mask.tif"


class _Counting(Predictor):
    """Counts patches in a number that outlives the process, which it kills when `last` of them are done."""

    def __init__(self, bundle: Bundle, counted: c_longlong, last: int | None) -> None:
        super().__init__(bundle, torch.device("cpu"))
        # A lock of this process alone: one that is shared would stay locked if the kill fell into it.
        self._counted, self._last, self._lock = counted, last, Lock()

    def scores(self, batch: PatchBatch) -> Tensor:
        found = super().scores(batch)
        with self._lock:
            self._counted.value += batch.count
            if self._last is not None and self._counted.value >= self._last:
                os.kill(os.getpid(), signal.SIGKILL)
        return found


def measure(asked: argparse.Namespace) -> Records:
    image = scene(asked.size)
    with tempfile.TemporaryDirectory(prefix="foveate-bench-") as scratch:
        return [measure_one(image, SHIPPED / "landcover", Path(scratch), options) for options in ASKED]


def measure_one(image: Path, bundle: Path, scratch: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Forwards of an undisturbed run, of one that is killed at half of them, and of the one that goes on from there."""
    print(options, file=sys.stderr)
    whole, code = forwards(image, bundle, scratch / "whole", options, None)
    assert code == 0, "the undisturbed run failed"
    killed, code = forwards(image, bundle, scratch / "killed", options, whole // 2)
    assert code == -signal.SIGKILL, "the run was to be killed"
    rest, code = forwards(image, bundle, scratch / "killed", options, None)
    assert code == 0, "the second run failed"
    masks = [(scratch / name / _MASK).read_bytes() for name in ("whole", "killed")]
    return options | {
        "forwards": whole,
        "killed_at": killed,
        "rest": rest,
        "repeated": (killed + rest - whole) / whole,
        "same": masks[0] == masks[1],
    }


def forwards(image: Path, bundle: Path, out: Path, options: dict[str, Any], last: int | None) -> tuple[int, int]:
    """(patches forwarded, exit code) of a job in a process of its own that goes on from what lies beside `out`."""
    context = multiprocessing.get_context("spawn")
    counted = context.Value(c_longlong, 0, lock=False)
    process = context.Process(target=_counted_run, args=(image, bundle, out, options, counted, last))
    process.start()
    process.join()
    assert process.exitcode is not None
    return counted.value, process.exitcode


def _counted_run(
    image: Path, bundle: Path, out: Path, options: dict[str, Any], counted: c_longlong, last: int | None
) -> None:
    def warm(spec: JobSpec) -> Predictor:
        return _Counting(load_bundle(spec.model), counted, last)

    with patch.object(worker.pipeline, "warm_predictor", warm):
        segment(image, bundle, out, options)


def table(records: Records) -> str:
    columns = ("coverage", "forwards", "killed after", "the second run's", "forwarded twice", "same mask")
    rows = [
        (
            record["coverage"],
            record["forwards"],
            record["killed_at"],
            record["rest"],
            f"{record['repeated']:.1%}",
            "yes" if record["same"] else "no",
        )
        for record in records
    ]
    return f"{markdown(columns, rows)}\n\nTarget: at most {TARGET:.0%} forwarded twice, and the same bytes."


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=FULL_SIDE, metavar="PX", help="side of the scene")


if __name__ == "__main__":
    run("resume", __doc__, measure, table, _arguments)

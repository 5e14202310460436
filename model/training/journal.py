"""What a run tells of itself while it trains: losses.csv, TensorBoard, and how long it will take."""

import csv
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.progress import Report, show_progress

__all__ = ["Journal", "telling"]

log = logging.getLogger(__name__)

_EVERY_SECONDS = 20.0
_POINTS = 5000
"""Of a curve in TensorBoard, about."""


class Journal:
    """`losses.csv` and `logs/` of a run, going on after update number `start`; what lies beyond it is dropped."""

    def __init__(self, run: Path, start: int, steps: int) -> None:
        # Takes seconds to import.
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        self._path = run / "losses.csv"
        _cut_back(self._path, start)
        self._file = self._path.open("a", newline="", buffering=1)
        self._board: Any = SummaryWriter(str(run / "logs"), purge_step=start + 1)
        self._every = max(1, steps // _POINTS)

    def record(self, step: int, report: dict[str, float]) -> None:
        """One update, `step` counted from 1; every number as Python prints it, which loses nothing."""
        writer = csv.writer(self._file)
        if self._file.tell() == 0:
            writer.writerow(["step", *report])
        writer.writerow([step, *(repr(value) for value in report.values())])
        if step % self._every == 0:
            for name, value in report.items():
                self._board.add_scalar(_curve(name), value, step)

    def picture(self, name: str, step: int, pixels: NDArray[np.uint8]) -> None:
        """`pixels` (H, W, 3) into TensorBoard."""
        self._board.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _cut_back(path: Path, start: int) -> None:
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    # A killed process may leave half a line.
    kept = [line for line in lines[1:] if line.endswith("\n") and int(line.split(",", 1)[0]) <= start]
    scratch = path.with_suffix(".partial")
    scratch.write_text("".join([*lines[:1], *kept]) if kept else "")
    scratch.replace(path)


def _curve(name: str) -> str:
    """TensorBoard groups curves by what stands before the slash."""
    group, _, rest = name.partition("_")
    return f"{group}/{rest}" if rest else name


@contextmanager
def telling(what: str, start: int, steps: int) -> Iterator["Telling"]:
    """A bar on a terminal; elsewhere a log line now and then."""
    if sys.stderr.isatty():
        with show_progress(what) as report:
            yield Telling(what, start, steps, report)
    else:
        yield Telling(what, start, steps, None)


class Telling:
    """How far, how well, and the time that is left."""

    def __init__(self, what: str, start: int, steps: int, bar: Report | None) -> None:
        self._what, self._steps, self._bar = what, steps, bar
        self._told = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._loss: float | None = None
        if start:
            log.info("%s: goes on from step %d of %d", what, start, steps)

    def tell(self, done: int, loss: float) -> None:
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        if self._bar is not None:
            self._bar(done / self._steps, f"loss {self._loss:.4f}")
            return
        now = time.monotonic()
        # The first update also waited for the samples to be read.
        first, begun = self._first = self._first or (done, now)
        if now - self._told < _EVERY_SECONDS and done < self._steps:
            return
        self._told = now
        left = int((now - begun) / max(1, done - first) * (self._steps - done))
        estimate = f", {left // 60} min {left % 60:02d} s left" if done > first or done == self._steps else ""
        log.info("%s: step %d of %d, loss %.4f%s", self._what, done, self._steps, self._loss, estimate)

"""Progress on stderr: one bar on a terminal, a plain line every few percent elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Report = Callable[[float, str], None]
"""Takes the done share in 0..1 and a short message; call it as often as you like, one call at a time."""

STEP = 0.05
"""Share of the work between two plain lines."""

__all__ = ["Report", "show_progress"]


@contextmanager
def show_progress(label: str, stream: TextIO | None = None) -> Iterator[Report]:
    """A `Report` for the block's duration; stdout stays free for results."""
    stream = stream or sys.stderr
    if stream.isatty():
        with _bar(label, stream) as report:
            yield report
    else:
        yield _plain_lines(label, stream)


@contextmanager
def _bar(label: str, stream: TextIO) -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[message]}", markup=True),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        task = progress.add_task(label, total=1.0, message="")
        yield lambda share, message: progress.update(task, completed=min(share, 1.0), message=message)


def _plain_lines(label: str, stream: TextIO) -> Report:
    started = time.monotonic()
    shown: tuple[int, str] | None = None

    def report(share: float, message: str) -> None:
        nonlocal shown
        step = int(min(share, 1.0) / STEP + 1e-9)
        if (step, message) == shown:
            return
        shown = (step, message)
        seconds = time.monotonic() - started
        stream.write(f"{label}: {min(share, 1.0):4.0%} {message} ({seconds:.0f} s)\n")
        stream.flush()

    return report

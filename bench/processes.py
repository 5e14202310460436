"""Processes that are measured: warm children that take calls, and commands whose whole tree is watched.

All stay in the bench's own process group.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import psutil

SAMPLE_SECONDS = 0.1
FOVEATE = (sys.executable, "-c", "from foveate.cli import main; main()")
"""The command `foveate` of this checkout."""


class Failed(Exception):
    """A command that was to be measured ended badly; the text is the end of what it said."""


@dataclass(frozen=True)
class Cost:
    """`peak_bytes`: largest sum of the proportional set sizes (PSS) over the process tree."""

    wall: float
    cpu: float
    peak_bytes: int


class Warm:
    """A child process that keeps what it has loaded from one call to the next; calls run one at a time."""

    def __init__(self, **environment: str) -> None:
        """`environment` is the child's from its start: libraries read it when they are imported."""
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        with patch.dict(os.environ, environment):
            self._pool.submit(int).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def call(self, name: str, *arguments: Any) -> Any:
        """What "module:function" returns; the module is imported in the child alone."""
        return self._pool.submit(_called, name, arguments).result()


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)(*arguments)


class Stopwatch:
    """Wall and CPU seconds of a `with` block; the CPU time of children that ended within it is counted."""

    def __enter__(self) -> Self:
        self._start = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall, self.cpu = time.perf_counter() - self._start[0], _cpu_seconds() - self._start[1]

    @property
    def times(self) -> dict[str, float]:
        return {"wall": self.wall, "cpu": self.cpu}


def watched(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end; raises Failed with its last words (kept whole in `log`) if it fails."""
    with log.open("wb") as output, Stopwatch() as spent:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(environment or os.environ))
        try:
            peak = _peak_pss(process)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise Failed(lines[-1] if lines else f"exit status {process.returncode}")
    return Cost(spent.wall, spent.cpu, peak)


def _peak_pss(process: "subprocess.Popen[bytes]") -> int:
    root, peak = psutil.Process(process.pid), 0
    while True:
        with suppress(psutil.Error):
            peak = max(peak, sum(map(_pss, (root, *root.children(recursive=True)))))
        with suppress(subprocess.TimeoutExpired):
            process.wait(SAMPLE_SECONDS)
            return peak


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0  # it has just ended


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

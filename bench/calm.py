"""Times that a shared host spoils: how much of this machine it gave to others meanwhile, and measuring again if much.

A virtual machine sees what its host took as "steal" (proc_stat(5)); elsewhere that is 0 and every run counts as calm.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

STOLEN_MOST = 0.02
"""Share of all cores' time above which a run is measured again."""
TRIES = 3

Timed = dict[str, Any]
"""What a measurement found; `stolen` joins it."""


def calmest(measure: Callable[[], Timed], stolen_seconds: Callable[[], float] | None = None) -> Timed:
    """The run of `measure` that lost least, with that share as `stolen`; taken again while it is over STOLEN_MOST.

    `stolen_seconds`: a clock of the time that the host took of all cores together; None: the machine's own.
    """
    clock = stolen_seconds or _stolen_seconds
    runs = [_timed(measure, clock)]
    while runs[-1]["stolen"] > STOLEN_MOST and len(runs) < TRIES:
        print(f"the host took {runs[-1]['stolen']:.0%} of the cores' time: once more", file=sys.stderr)
        runs.append(_timed(measure, clock))
    return min(runs, key=lambda run: float(run["stolen"]))


def _timed(measure: Callable[[], Timed], clock: Callable[[], float]) -> Timed:
    start = time.perf_counter(), clock()
    found = measure()
    wall, stolen = time.perf_counter() - start[0], clock() - start[1]
    return found | {"stolen": stolen / (wall * (os.cpu_count() or 1))}


def _stolen_seconds() -> float:
    return float(getattr(psutil.cpu_times(), "steal", 0.0))

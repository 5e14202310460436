"""What every bench prints and writes: Markdown tables, JSON, and the machine and commit that they were made on."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
Records = list[dict[str, Any]]
"""What a bench measured; all of it goes into its JSON."""


def machine() -> dict[str, Any]:
    """Cores that this process may use, CPU model, versions, commit, and how busy the machine is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "commit": _commit(),
        "date": f"{date.today():%Y-%m-%d}",
        "load": round(os.getloadavg()[0], 1),
    }


def spelled(found: Mapping[str, Any]) -> str:
    """A machine on one line."""
    return ", ".join(f"{name} {value}" for name, value in found.items())


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; numbers are right-aligned and have three significant digits."""
    numeric = [all(isinstance(row[k], int | float) for row in rows) for k in range(len(columns))]
    rule = ["---:" if right else "---" for right in numeric]
    body = [[_cell(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(columns), rule, *body])


def spread(values: Sequence[float]) -> str:
    """Least to largest, for the cell beside a median."""
    return f"{_cell(min(values))} to {_cell(max(values))}"


def middle(values: Sequence[float]) -> float:
    return float(median(values))


def write_report(path: Path | None, name: str, results: Any) -> None:
    """The results with the machine's description, as JSON at `path`, if one was asked for."""
    if path is not None:
        path.write_text(json.dumps({"bench": name, "machine": machine(), "results": results}, indent=2) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"

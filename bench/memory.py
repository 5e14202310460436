"""Peak memory of `foveate segment` as images grow: sum of the proportional set sizes over the process tree.

    make bench NAME=memory [SIZE=256] [REPEATS=3]

Synthetic scenes, sparse on disk, every pixel of them data; SIZE is the largest in megapixels. REPEATS is for images
that take seconds: their peaks differ by up to a tenth from run to run, as much as growth may come to. A coverage that
the engine or the bundle refuses has a row that says why, and no figures.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.images import sparse_scene
from bench.models import SHIPPED, pixelwise
from bench.processes import FOVEATE, Failed, watched
from bench.report import Records, markdown, middle
from bench.runner import repeats, run

MEGAPIXELS = (64, 256, 1024, 4096)
COVERAGES = ("dense", "planned", "refined")
BANK = 3
_REPEATED = 256
"""Megapixels of the largest image that is measured more than once."""


def measure(asked: argparse.Namespace) -> Records:
    sizes = [size for size in MEGAPIXELS if size <= asked.size] or [asked.size]
    with tempfile.TemporaryDirectory(prefix="foveate-bench-") as folder:
        bundle = SHIPPED / asked.model if asked.model else pixelwise(Path(folder), BANK)
        return [
            measure_one(size, coverage, bundle, Path(folder), asked.memory, asked.repeats if size <= _REPEATED else 1)
            for coverage in asked.coverages
            for size in sizes
        ]


def measure_one(
    megapixels: int, coverage: str, bundle: Path, folder: Path, memory_gb: float, times: int
) -> dict[str, Any]:
    """So many runs of the command; `refused` holds the reason where there are no figures."""
    record: dict[str, Any] = {"megapixels": megapixels, "coverage": coverage, "model": bundle.name}
    costs = []
    for again in range(times):
        print(f"{coverage}, {megapixels} Mpx, {again + 1} of {times}", file=sys.stderr)
        out, log = folder / f"{coverage}-{megapixels}-{again}", folder / "log"
        command = [*FOVEATE, "segment", str(sparse_scene(megapixels))]
        command += ["--out", str(out), "--model", str(bundle), "--coverage", coverage, "--memory", f"{memory_gb:g}"]
        try:
            costs.append(watched(command, log))
        except Failed as failed:
            return record | {"refused": _first_error(log) or str(failed)}
        done = json.loads((out / "manifest.json").read_text())["parameters"]["coverage"]
        if done != coverage:
            return record | {"refused": f"the engine ran {done} coverage instead"}
    return record | {name: [getattr(cost, name) for cost in costs] for name in ("peak_bytes", "wall", "cpu")}


def growth(records: Records, coverage: str) -> float | None:
    """The largest image's median peak over the smallest's, less one; None without two of them."""
    peaks = {
        r["megapixels"]: middle(r["peak_bytes"]) for r in records if r["coverage"] == coverage and "peak_bytes" in r
    }
    return peaks[max(peaks)] / peaks[min(peaks)] - 1 if len(peaks) > 1 else None


def table(records: Records) -> str:
    rows = [(record["coverage"], record["model"], record["megapixels"], *_cells(record)) for record in records]
    columns = ("coverage", "bundle", "Mpx", "peak PSS, GB", "spread", "wall s", "CPU s")
    grown = [
        f"{coverage}: {share:+.1%} from the smallest to the largest"
        for coverage in dict.fromkeys(record["coverage"] for record in records)
        if (share := growth(records, coverage)) is not None
    ]
    return "\n\n".join([markdown(columns, rows), *grown, "Target: below 1.5 GB, growth under 10 %."])


def _cells(record: dict[str, Any]) -> tuple[str, ...]:
    if "refused" in record:
        return record["refused"], "", "", ""
    peaks = [peak / 1e9 for peak in record["peak_bytes"]]
    several = f"{min(peaks):.3f} to {max(peaks):.3f}" if len(peaks) > 1 else ""
    return f"{middle(peaks):.3f}", several, f"{middle(record['wall']):.0f}", f"{middle(record['cpu']):.0f}"


def _first_error(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return next((line.strip() for line in lines if line.lower().startswith("error")), "")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=max(MEGAPIXELS), metavar="MPX", help="the largest, in megapixels")
    repeats(parser, 3)
    parser.add_argument("--coverages", nargs="+", default=list(COVERAGES), choices=COVERAGES)
    parser.add_argument("--model", help="a shipped bundle; without one, a per-pixel network with three fields of view")
    parser.add_argument("--memory", type=float, default=2.0, metavar="GB", help="what the engine may use")


if __name__ == "__main__":
    run("memory", __doc__, measure, table, _arguments)

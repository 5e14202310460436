"""What adaptive coverage costs in wall time: planned and refined against dense, on one large scene.

    make bench NAME=coverage [SIZE=8192] [REPEATS=2]

A warm engine takes them in turn through `landcover`, from the start of a job to its published directory. `share` is
forwards over dense's, inner nodes counted, as the manifest tells; `preview` is when the mask of the coarse pass could
be read.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from bench.calm import calmest
from bench.images import scene
from bench.models import SHIPPED
from bench.processes import Warm
from bench.report import Records, markdown, middle, spread
from bench.runner import repeats, run

SIDE = 14_336
"""206 megapixels."""
DETAILS = (0.2, 0.35, 0.5)
ASKED: list[dict[str, Any]] = [
    {"coverage": "dense"},
    *({"coverage": coverage, "detail": detail} for coverage in ("planned", "refined") for detail in DETAILS),
]
ALLOWED = 0.10
"""Of dense's wall time, beside the share of its forwards."""
PREVIEW_SECONDS = 10


def measure(asked: argparse.Namespace) -> Records:
    image, bundle = scene(asked.size), SHIPPED / "landcover"
    with tempfile.TemporaryDirectory(prefix="foveate-bench-") as scratch, Warm(OMP_WAIT_POLICY="PASSIVE") as engine:
        return measure_all(image, bundle, Path(scratch) / "out", engine, asked.repeats)


def measure_all(image: Path, bundle: Path, out: Path, engine: Warm, count: int) -> Records:
    """One record for each of ASKED, after a small job unmeasured; its lists hold one value a repeat."""
    engine.call("bench.engine:run", image, bundle, out, {"roi": (0, 0, 1024, 1024)})
    records: Records = [options | {"wall": [], "preview": [], "stolen": []} for options in ASKED]
    for turn in range(count):
        for options, record in zip(ASKED, records, strict=True):
            done = calmest(partial(engine.call, "bench.engine:run", image, bundle, out, options))
            manifest = done["manifest"]
            record["wall"].append(done["wall"])
            record["stolen"].append(done["stolen"])
            record["forwards"], record["share"] = manifest["counts"]["forwards"], manifest["counts"]["forwards_share"]
            if "preview" in manifest["seconds"]:
                record["preview"].append(manifest["seconds"]["preview"])
            print(f"turn {turn + 1}: {options}: {done['wall']:.1f} s", file=sys.stderr)
    return records


def wall_share(records: Records, record: dict[str, Any]) -> float:
    """The median wall time over dense's."""
    return middle(record["wall"]) / middle(records[0]["wall"])


def table(records: Records) -> str:
    head = ("coverage", "detail", "forwards", "share", "wall s", "spread", "stolen, at most", "wall / dense", "target")
    rows = [
        (
            record["coverage"],
            str(record.get("detail", "")),
            record["forwards"],
            f"{record['share']:.3f}",
            middle(record["wall"]),
            spread(record["wall"]),
            f"{max(record['stolen']):.1%}",
            f"{wall_share(records, record):.3f}",
            f"at most {record['share'] + ALLOWED:.3f}" if record is not records[0] else "",
            f"{middle(record['preview']):.1f}" if record["preview"] else "",
        )
        for record in records
    ]
    return (
        f"{markdown((*head, 'preview s'), rows)}\n\nTarget of the preview: at most {PREVIEW_SECONDS} s after the start."
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=SIDE, metavar="PX", help="side of the scene")
    repeats(parser, 2)


if __name__ == "__main__":
    run("coverage", __doc__, measure, table, _arguments)

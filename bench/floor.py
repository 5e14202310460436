"""How near the engine comes to its floor: the whole job against its forwards alone and its decoding alone.

    make bench NAME=floor [SIZE=1024] [REPEATS=3]

A warm engine is timed from the start of a job to its published directory. Forward-only puts the same batches through
the same network out of memory: several side by side as the engine does, and one after the other with every layer split
among the cores, which is what torch does by itself. Decode-only reads every needed pixel through the source. They take
turns, each in a process of its own, with both cores to itself.

In the case `accelerator` a simulated one takes the network's place: it finishes each patch after a fixed time, at 60 %
of the rate that decoding alone reaches. Its scene has twice the sides, so that the stage lasts seconds: it begins with
a patch that is read and ends with a block that is committed, whatever the scene.

The cases without regions leave out the polygons, which a network's forwards do not pay for where the mask is ragged.

"stolen" is the share of all cores' time that the host of this machine gave to others; a run that lost much is taken
again (`bench.calm`).
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.calm import calmest
from bench.images import FULL_SIDE, scene, slide
from bench.models import SHIPPED, tiny_fcn
from bench.processes import Stopwatch, Warm
from bench.report import Records, markdown, middle, spread
from bench.runner import repeats, run

ACCELERATOR_SHARE = 0.6
_QUIET = {"OMP_WAIT_POLICY": "PASSIVE"}
"""As every way to start an engine sets it."""


@dataclass(frozen=True)
class Case:
    """One image through one bundle. `image` makes it at a side, `bundle` in a folder."""

    name: str
    image: Callable[[int], Path]
    bundle: Callable[[Path], Path]
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    case.name: case
    for case in (
        Case("landcover", scene, lambda folder: SHIPPED / "landcover"),
        Case("glands", slide, lambda folder: SHIPPED / "glands"),
        Case("tiny-fcn", scene, tiny_fcn, {"overlap": 0.0}),
        Case("landcover-no-regions", scene, lambda folder: SHIPPED / "landcover", {"regions": False}),
        Case("tiny-fcn-no-regions", scene, tiny_fcn, {"overlap": 0.0, "regions": False}),
        Case("accelerator", lambda side: scene(2 * side), tiny_fcn, {"overlap": 0.0}),
    )
}


def measure(asked: argparse.Namespace) -> Records:
    records: Records = []
    for name in asked.cases:
        case = CASES[name]
        image = case.image(asked.size)
        measured = measure_accelerator if name == "accelerator" else measure_case
        with tempfile.TemporaryDirectory(prefix="foveate-bench-") as scratch:
            records.append(measured(case, image, Path(scratch), asked.repeats))
        print(f"{name}: done", file=sys.stderr)
    return records


def measure_case(case: Case, image: Path, scratch: Path, count: int) -> dict[str, Any]:
    """All figures of one case; lists hold one value a repeat."""
    bundle = case.bundle(scratch)
    job = image, bundle, scratch / "engine", case.options
    with Warm(**_QUIET) as engine, Warm() as network, Warm() as reader:
        with Stopwatch() as start:
            engine.call("bench.engine:run", *job[:3], case.options | {"roi": (0, 0, 1024, 1024), "tissue_mask": False})
        forwards = network.call("bench.engine:record", image, bundle, scratch / "recorded", case.options)
        whole, forward, split, decoding = [], [], [], []
        for _ in range(count):
            whole.append(_calm(engine, "run", *job))
            forward.append(_calm(network, "forward"))
            split.append(_calm(network, "forward_split"))
            decoding.append(_calm(reader, "decode", *job[:3]))
    manifest = whole[0]["manifest"]
    return {
        "case": case.name,
        "image": f"{image.name}, {manifest['image']['width']} x {manifest['image']['height']}",
        "forwards": forwards,
        "start_up": start.wall,
        "engine": _times(whole),
        "forward_only": _times(forward),
        "forward_split": _times(split),
        "decode_only": _times(decoding) | {"pixels": decoding[0]["pixels"]},
        "stages": {stage: [run["manifest"]["seconds"][stage] for run in whole] for stage in manifest["seconds"]},
    }


def measure_accelerator(case: Case, image: Path, scratch: Path, count: int) -> dict[str, Any]:
    """The figures of the simulated accelerator; lists hold one value a repeat."""
    bundle = case.bundle(scratch)
    whole, runs = scratch / "engine", []
    with Warm(**_QUIET) as engine, Warm() as reader, Warm(**_QUIET) as device:
        manifest = engine.call("bench.engine:run", image, bundle, whole, case.options | {"regions": False})["manifest"]
        for _ in range(count):
            decoding = _calm(reader, "decode", image, bundle, whole)["wall"]
            takes = decoding / manifest["counts"]["forwards"] / ACCELERATOR_SHARE
            done = _calm(device, "accelerated", image, bundle, scratch / "device", case.options, takes)
            runs.append(done | {"seconds_per_patch": takes, "decode_only": decoding})
    return {
        "case": case.name,
        "image": f"{image.name}, {manifest['image']['width']} x {manifest['image']['height']}",
        "accelerator": {
            key: [run[key] for run in runs] for key in ("wall", "busy", "seconds_per_patch", "decode_only")
        },
    }


def _calm(process: Warm, name: str, *arguments: Any) -> dict[str, Any]:
    return calmest(lambda: process.call(f"bench.engine:{name}", *arguments))


def _times(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: [run[key] for run in runs] for key in ("wall", "cpu", "stolen")}


def ratio(record: dict[str, Any], clock: str, *floors: str) -> float:
    """The engine's median over the sum of the floors' medians."""
    return middle(record["engine"][clock]) / sum(middle(record[floor][clock]) for floor in floors)


def table(records: Records) -> str:
    engines = [record for record in records if "engine" in record]
    simulated = [_busy(record) for record in records if "accelerator" in record]
    parts = _of_engines(engines) if engines else []
    if simulated:
        columns = ("case", "image", "ms a patch", "wall s", "busy share of the inference stage", "spread", "target")
        parts += ["Simulated accelerator at 60 % of the decode-only rate:", markdown(columns, simulated)]
    return "\n\n".join(parts)


def _of_engines(records: Records) -> list[str]:
    seconds = markdown(
        ("case", "image", "forwards", "", "wall s", "spread", "CPU s", "stolen, at most"),
        [row for record in records for row in _seconds(record)],
    )
    ratios = markdown(
        (
            "case",
            "wall / forward-only",
            "wall / (forward-only + decode-only)",
            "the same in CPU seconds",
            "wall / forward-only, split",
            "target",
        ),
        [_ratios(record) for record in records],
    )
    stages = markdown(
        ("case", "stage", "median s", "spread"),
        [
            (record["case"], stage, middle(values), spread(values))
            for record in records
            for stage, values in record["stages"].items()
        ],
    )
    return [seconds, ratios, "By stage of the engine:", stages]


def _seconds(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    head = (record["case"], record["image"], record["forwards"])
    names = {
        "engine": "engine, warm",
        "forward_only": "forward-only",
        "forward_split": "forward-only, layers split among the cores",
        "decode_only": "decode-only",
    }
    rows = [
        (
            *(*head, label, middle(record[key]["wall"]), spread(record[key]["wall"]), middle(record[key]["cpu"])),
            f"{max(record[key]['stolen']):.1%}",
        )
        for key, label in names.items()
    ]
    return [*rows, (*head, "start-up and a first patch", record["start_up"], "once", "", "")]


def _ratios(record: dict[str, Any]) -> tuple[Any, ...]:
    both = ("forward_only", "decode_only")
    cpu = f"{ratio(record, 'cpu', 'forward_only'):.3g}; {ratio(record, 'cpu', *both):.3g}"
    target = "second at most 1.15" if record["case"].startswith("tiny-fcn") else "first at most 1.10"
    walls = [ratio(record, "wall", *floors) for floors in (both[:1], both, ("forward_split",))]
    return record["case"], *walls[:2], cpu, walls[2], target


def _busy(record: dict[str, Any]) -> tuple[Any, ...]:
    found = record["accelerator"]
    head = record["case"], record["image"], 1000 * middle(found["seconds_per_patch"]), middle(found["wall"])
    return *head, middle(found["busy"]), spread(found["busy"]), "at least 0.90"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=FULL_SIDE, metavar="PX", help="side of the scene")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    repeats(parser, 3)


if __name__ == "__main__":
    run("floor", __doc__, measure, table, _arguments)

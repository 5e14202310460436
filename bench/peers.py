"""Foveate against its peers: the same weights, image and overlap, whether the masks agree, and then what they cost.

    make bench NAME=peers [SIZE=2048] [REPEATS=3]

Each peer runs its script of bench/peer_scripts in its own virtual environment (`bench.environments`), made when it is
first asked for. All take turns. `wall` is the whole process; `job` runs from opening the image to the written result,
without imports and without loading the network. Foveate leaves out its polygons, which no peer writes; it alone writes
overviews, overlay, foveation map and statistics.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from safetensors.torch import save_file

from bench.calm import calmest
from bench.environments import NotInstalled, python_of
from bench.images import FULL_SIDE, flat_scene
from bench.models import SHIPPED, tiny_fcn
from bench.processes import FOVEATE, Failed, watched
from bench.report import Records, markdown, middle, spread
from bench.runner import repeats, run
from model.bundle import load_bundle, load_networks

SCRIPTS = Path(__file__).parent / "peer_scripts"
OVERLAP = 0.25
_CONSTANT = "equal weights where windows overlap; the last window is moved into the image"


@dataclass(frozen=True)
class Peer:
    """`script` runs in `environment`; `differs`: why its mask is not Foveate's, pixel by pixel."""

    label: str
    script: str
    environment: str
    requirements: tuple[str, ...]
    differs: str


_MONAI = ("monai", "openslide-python", "openslide-bin", "zarr")
PEERS = {
    "rasterio": Peer("plain rasterio loop", "rasterio_loop.py", "rasterio", (), _CONSTANT),
    "monai": Peer("MONAI SlidingWindowInferer", "monai_window.py", "monai", _MONAI, _CONSTANT),
    "monai-wsi": Peer(
        "MONAI WSI splitter, ZarrAvgMerger",
        "monai_wsi.py",
        "monai",
        _MONAI,
        "equal weights where windows overlap; the last window is padded with white",
    ),
    "tiatoolbox": Peer(
        "TIAToolbox SemanticSegmentor",
        "tiatoolbox_segmentor.py",
        "tiatoolbox",
        ("tiatoolbox>=2",),
        "equal weights where windows overlap; the last window is padded by its reader",
    ),
    "geoai": Peer(
        "geoai",
        "geoai_geotiff.py",
        "geoai",
        ("geoai-py",),
        "weights fall to a tenth at a window's edge; the last window is moved into the image",
    ),
}


@dataclass(frozen=True)
class Agreement:
    """Two masks against each other. `equal`: share of equal pixels; `miou`: mean IoU over the classes in either;
    `core`: share of equal pixels where both have one window alone, so that no blending enters.
    """

    equal: float
    miou: float
    core: float


def agreement(ours: NDArray[np.uint8], theirs: NDArray[np.uint8], patch: int, stride: int) -> Agreement:
    """Raises ValueError where the sizes differ."""
    if ours.shape != theirs.shape:
        raise ValueError(f"a mask of {theirs.shape} rows and columns stands against {ours.shape}")
    same = ours == theirs
    ious = []
    for value in np.union1d(np.unique(ours), np.unique(theirs)):
        a, b = ours == value, theirs == value
        ious.append((a & b).sum() / (a | b).sum())
    rows, columns = (alone(length, patch, stride) for length in ours.shape)
    core = same[np.ix_(rows, columns)]
    return Agreement(float(same.mean()), float(np.mean(ious)), float(core.mean()) if core.size else float("nan"))


def alone(length: int, patch: int, stride: int) -> NDArray[np.bool_]:
    """(length,) pixels that one window alone covers, wherever the last window of an axis may lie."""
    places = np.arange(length)
    before = (places < stride) | (places % stride >= patch - stride)
    found: NDArray[np.bool_] = before & (places < length - patch)
    return found


def measure(asked: argparse.Namespace) -> Records:
    image = flat_scene(asked.size)
    records: Records = []
    with tempfile.TemporaryDirectory(prefix="foveate-bench-") as scratch:
        pythons = {name: _python(name) for name in asked.peers}
        for model in asked.models:
            bundle = tiny_fcn(Path(scratch)) if model == "tiny-fcn" else SHIPPED / model
            records += measure_model(image, bundle, pythons, Path(scratch), asked.repeats)
    return records


def measure_model(image: Path, bundle: Path, pythons: dict[str, Path | str], scratch: Path, count: int) -> Records:
    """One record for Foveate and one for each peer, `pythons` being interpreters or reasons for none."""
    folder = scratch / f"network-{bundle.name}"
    patch = export(bundle, folder)
    ours: dict[str, Any] = {"model": bundle.name, "who": "Foveate", "runs": []}
    theirs: dict[str, dict[str, Any]] = {
        name: {"model": bundle.name, "who": PEERS[name].label, "runs": []} for name in pythons
    }
    out = scratch / "ours"
    for _ in range(count):
        ours["runs"].append(calmest(lambda: _foveate(image, bundle, out, scratch / "foveate.log")))
        stride = json.loads((out / "manifest.json").read_text())["parameters"]["stride"]
        mask = _read(out / "mask.tif")
        for name, python in pythons.items():
            record = theirs[name]
            if "failed" in record:
                continue
            if isinstance(python, str):
                record["failed"] = python
                continue
            print(f"{bundle.name}: {name}", file=sys.stderr)
            try:
                asked = PEERS[name], python, image, folder, scratch, patch, stride
                record["runs"].append(calmest(partial(_peer, *asked)))
                found = agreement(mask, _read(scratch / "theirs.tif"), patch, stride)
                record["agreement"] = asdict(found) | {"differs": PEERS[name].differs}
            except (Failed, ValueError, OSError) as error:
                record["failed"] = str(error)
    return [ours, *theirs.values()]


def export(bundle: Path, folder: Path) -> int:
    """The bundle's network as the peers' scripts load it; returns the side of its patches."""
    loaded = load_bundle(bundle)
    card, network = loaded.card, load_networks(loaded)[0]
    folder.mkdir(parents=True)
    fields = {"library", "architecture", "encoder", "scale_channel", "options"}
    about = card.network.model_dump(mode="json", include=fields)
    about |= {"classes": len(card.classes), "mean": list(card.input.mean), "std": list(card.input.std)}
    (folder / "network.json").write_text(json.dumps(about))
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "network.safetensors"
    )
    return card.patch_size


def _python(name: str) -> Path | str:
    peer = PEERS[name]
    try:
        return python_of(peer.environment, peer.requirements)
    except NotInstalled as error:
        return f"cannot be installed: {error}"


def _foveate(image: Path, bundle: Path, out: Path, log: Path) -> dict[str, float]:
    shutil.rmtree(out, ignore_errors=True)
    command = [*FOVEATE, "segment", str(image), "--out", str(out), "--model", str(bundle), "--overlap", str(OVERLAP)]
    cost = watched([*command, "--policy", "fixed:1", "--coverage", "dense", "--no-tissue-mask", "--no-regions"], log)
    manifest = json.loads((out / "manifest.json").read_text())
    return asdict(cost) | {"job": manifest["seconds"]["total"] - manifest["seconds"]["load"]}


def _peer(
    peer: Peer, python: Path, image: Path, network: Path, scratch: Path, patch: int, stride: int
) -> dict[str, float]:
    out = scratch / "theirs.tif"
    for path in (out, Path(f"{out}.json")):
        path.unlink(missing_ok=True)
    command = [str(python), str(SCRIPTS / peer.script), str(image), str(network), str(out), str(patch), str(stride)]
    cost = watched(command, scratch / f"{peer.environment}.log")
    return asdict(cost) | {"job": json.loads(Path(f"{out}.json").read_text())["seconds"]}


def _read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as file:
        mask: NDArray[np.uint8] = file.read(1)
    return mask


def table(records: Records) -> str:
    agree = markdown(
        ("model", "against Foveate", "equal pixels", "mIoU", "equal where one window stands alone", "what differs"),
        [_agreement_row(record) for record in records if record["who"] != "Foveate"],
    )
    costs = markdown(
        ("model", "who", "job s", "spread", "wall s", "CPU s", "stolen, at most", "peak PSS, GB", "job / Foveate's"),
        [_cost_row(record, _reference(records, record["model"])) for record in records if record["runs"]],
    )
    return f"{agree}\n\n{costs}"


def _agreement_row(record: dict[str, Any]) -> tuple[str, ...]:
    head = record["model"], record["who"]
    if "failed" in record:
        return (*head, "", "", "", f"not measured: {record['failed']}")
    found = record["agreement"]
    return (*head, *(f"{100 * found[key]:.3f} %" for key in ("equal", "miou", "core")), found["differs"])


def _cost_row(record: dict[str, Any], reference: float) -> tuple[Any, ...]:
    runs = record["runs"]
    jobs = [run["job"] for run in runs]
    wall, cpu = (middle([run[key] for run in runs]) for key in ("wall", "cpu"))
    peak = middle([run["peak_bytes"] / 1e9 for run in runs])
    stolen = f"{max(run['stolen'] for run in runs):.1%}"
    return record["model"], record["who"], middle(jobs), spread(jobs), wall, cpu, stolen, peak, middle(jobs) / reference


def _reference(records: Records, model: str) -> float:
    ours = next(record for record in records if record["model"] == model and record["who"] == "Foveate")
    return middle([run["job"] for run in ours["runs"]])


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=FULL_SIDE, metavar="PX", help="side of the scene")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--models", nargs="+", default=["tiny-fcn", "landcover"])
    repeats(parser, 3)


if __name__ == "__main__":
    run("peers", __doc__, measure, table, _arguments)

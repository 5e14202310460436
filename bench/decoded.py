"""How many pixels the codec delivers for every pixel that a dense run needs.

    make bench NAME=decoded [SIZE=2048]

What is needed is painted by `bench.needed` from the plan that the result tells, pixel by pixel and in whole tiles of
the file, below which no codec goes; what was decoded is the codec's own count, in the manifest, and so is what an image
without overviews costs before, for levels of its own. Banks of three and of five fields of view, each twice the one
before, overlap 0.25. The F_theta of `mode` is random, and scatters its choices as no trained one does.
"""

import argparse
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.engine import run as segment
from bench.images import FULL_SIDE, flat_scene, scene, slide
from bench.models import pixelwise
from bench.needed import in_whole_tiles, needed
from bench.report import Records, markdown
from bench.runner import run
from model.bundle import load_bundle
from raster.image import ImageRef, open_image

BANKS = (3, 5)
POLICIES = ("mode", "fixed:1", "ensemble")
IMAGES = {"tiled, no overviews": flat_scene, "tiled with overviews": scene, "slide": slide}
TARGET = 1.10


def measure(asked: argparse.Namespace) -> Records:
    with tempfile.TemporaryDirectory(prefix="foveate-bench-") as folder:
        return [
            measure_one(name, image(asked.size), bank, policy, Path(folder))
            for name, image in IMAGES.items()
            for bank in BANKS
            for policy in POLICIES
        ]


def measure_one(name: str, image: Path, bank: int, policy: str, folder: Path) -> dict[str, Any]:
    """Decoded and needed pixels of one job; `counted` is the engine's own figure of what it needs."""
    print(f"{name}, {bank} fields of view, {policy}", file=sys.stderr)
    bundle = pixelwise(folder, bank)
    manifest = segment(image, bundle, folder / "out", {"policy": policy})["manifest"]
    counts = manifest["counts"]
    masks = needed(folder / "out", load_bundle(bundle).card)
    with closing(open_image(ImageRef(image))) as opened:
        tiles = [level.tile for level in opened.info.levels]
    painted = sum(int(mask.sum()) for mask in masks.values())
    return {
        "image": name,
        "pixels": manifest["image"]["width"] * manifest["image"]["height"],
        "bank": bank,
        "policy": policy,
        "needed": painted,
        "counted": counts["pixels_needed"],
        "tiles": sum(in_whole_tiles(mask, tiles[level]) for level, mask in masks.items()),
        "decoded": counts["pixels_decoded"],
        "converted": counts["pixels_converted"],
    }


def table(records: Records) -> str:
    columns = (
        "image",
        "Mpx",
        "D",
        "policy",
        "needed Mpx",
        "the engine's count of it",
        "in whole tiles",
        "decoded Mpx",
        "decoded / needed",
        "decoded / whole tiles",
        "before, for levels",
    )
    rows = [
        (
            record["image"],
            record["pixels"] / 1e6,
            record["bank"],
            record["policy"],
            *(record[key] / 1e6 for key in ("needed", "counted", "tiles", "decoded")),
            record["decoded"] / record["needed"],
            record["decoded"] / record["tiles"],
            record["converted"] / 1e6,
        )
        for record in records
    ]
    worst = [max(record["decoded"] / record[key] for record in records) for key in ("needed", "tiles")]
    largest = f"Largest ratio {worst[0]:.3f}, and {worst[1]:.3f} in whole tiles; target at most {TARGET:.2f}."
    return f"{markdown(columns, rows)}\n\n{largest}"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=FULL_SIDE, metavar="PX", help="side of the scene")


if __name__ == "__main__":
    run("decoded", __doc__, measure, table, _arguments)

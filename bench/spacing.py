"""How a bundle's score falls when the scanner was coarser than its spacing: grounds for `input.spacing_range`.

    python bench/spacing.py bundles/glands 0.62 0.8 1.0 1.3

Every test image of the bundle's recipe is first reduced to each spacing, then enlarged to the bundle's again.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model.bundle import load_bundle
from model.datasets.layouts import find_pairs
from model.datasets.pair import Pair
from model.evaluation.scores import score_bundle
from model.predictor import Predictor
from model.training.config import parse_config, read_yaml
from raster.geometry import Region, Size
from raster.resample import resample


def through(pair: Pair, factor: float, folder: Path) -> Pair:
    """The image as a scanner with pixels `factor` times as wide would have it, enlarged again, in `folder`."""
    paths = []
    for path in pair.images:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        height, width = pixels.shape[:2]
        coarse = Size(max(1, round(width / factor)), max(1, round(height / factor)))
        paths.append(folder / f"{pair.name.replace('/', '-')}-{len(paths)}.png")
        Image.fromarray(resized(resized(pixels, coarse), Size(width, height))).save(paths[-1])
    return dataclasses.replace(pair, images=tuple(paths))


def resized(pixels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    return np.array(resample(pixels, Region(0, 0, width, height), (0, 0, width, height), size))


def main(directory: str, *spacings: str) -> None:
    bundle = load_bundle(Path(directory))
    own = bundle.card.input.spacing
    if own is None:
        sys.exit(f"{directory} has no spacing")
    recipe = parse_config(read_yaml(bundle.directory / "training.yaml"), directory)
    pairs = find_pairs(recipe.data, "test")
    predictor = Predictor(bundle, torch.device("cpu"))
    names = [entry.name for entry in bundle.card.classes]
    print("| spacing | mean IoU |", " | ".join(f"Dice {name}" for name in names), "|")
    policy = bundle.card.policy
    for spacing in map(float, spacings):
        with tempfile.TemporaryDirectory() as folder:
            seen = pairs if spacing == own else [through(pair, spacing / own, Path(folder)) for pair in pairs]
            score = score_bundle(predictor, seen, recipe.data, [policy])[policy]
        dice = " | ".join(f"{100 * value:.1f}" for value in score["dice"].values() if value is not None)
        print(f"| {spacing:g} | {100 * score['miou']:.1f} | {dice} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

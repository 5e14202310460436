"""How a bundle's score falls when the scanner was coarser than its spacing: grounds for `input.spacing_range`.

    python bench/spacing.py bundles/glands 0.62 0.8 1.0 1.3

Every test image of the bundle's recipe is first reduced to each spacing, then enlarged to the bundle's again.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.bundle import load_bundle
from model.datasets.patches import Labelled, load_images
from model.evaluation.evaluate import evaluate
from model.predictor import Predictor
from model.training.config import read_config
from raster.geometry import Region, Size
from raster.resample import resample


def through(image: Labelled, factor: float) -> Labelled:
    """The image as a scanner with pixels `factor` times as wide would have it, enlarged again."""
    size = image.size
    coarse = Size(max(1, round(size.width / factor)), max(1, round(size.height / factor)))
    pixels = resized(resized(image.pixels, coarse), size)
    return dataclasses.replace(image, pixels=pixels)


def resized(pixels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    return np.array(resample(pixels, Region(0, 0, width, height), (0, 0, width, height), size))


def main(directory: str, *spacings: str) -> None:
    bundle = load_bundle(Path(directory))
    own = bundle.card.input.spacing
    if own is None:
        sys.exit(f"{directory} has no spacing")
    recipe = read_config(bundle.directory / "training.yaml")
    images = load_images(recipe.data, recipe.data.test, None)
    predictor = Predictor(bundle, torch.device("cpu"))
    names = [entry.name for entry in bundle.card.classes]
    print("| spacing | mean IoU |", " | ".join(f"Dice {name}" for name in names), "|")
    for spacing in map(float, spacings):
        seen = images if spacing == own else [through(image, spacing / own) for image in images]
        counts = evaluate(predictor, seen, [bundle.card.policy], 0.25)[bundle.card.policy].counts
        dice = " | ".join(f"{100 * value:.1f}" for value in counts.dice)
        print(f"| {spacing:g} | {100 * counts.mean_iou():.1f} | {dice} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

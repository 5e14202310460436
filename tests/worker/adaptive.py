"""What the tests of adaptive coverage share: a bundle whose fields of view nest, and an image that asks for several."""

from pathlib import Path

import numpy as np

from tests.bundles import CURVE, make_bundle

P = 64
COVERAGES = ["planned", "refined"]


def make_tree_bundle(directory: Path, **changes) -> Path:
    """A bundle that either coverage takes, unless `changes` say otherwise."""
    settings = {"kind": "any", "spacing": None, "mapping": "explicit", "policy": "mode", "coverage": {"curve": CURVE}}
    return make_bundle(directory, **({"name": directory.name} | settings | changes))


def patchwork(height, width, seed=0):
    """Black and white squares on the left, flat grey in the middle, faint ones on the right."""
    rng = np.random.default_rng(seed)
    squares = np.kron(rng.integers(0, 2, (height // 36 + 1, width // 36 + 1)), np.ones((36, 36), int))[:height, :width]
    image = np.full((height, width, 3), 90, np.uint8)
    third = width // 3
    image[:, :third] = 255 * squares[:, :third, None]
    image[:, 2 * third :] = 120 + 20 * squares[:, 2 * third :, None]
    return image

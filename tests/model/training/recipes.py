"""A small training problem: two colours on blocks, whose classes a linear network can learn in seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

PATCH = 32
CLASSES = 2
UNLABELLED = 9


def write_pictures(folder: Path, count: int = 3, side: int = 160) -> None:
    """PNG pairs in `folder`/images and labels: bluish squares of class 1 on reddish ground, a strip not labelled."""
    random = np.random.default_rng(5)
    for k in range(count):
        labels = np.kron(random.integers(CLASSES, size=(side // 16, side // 16)), np.ones((16, 16), int)).astype(
            np.uint8
        )
        noise = random.integers(0, 40, (side, side, 3))
        pixels = np.where(labels[..., None] == 1, [60, 90, 190], [190, 110, 60]) + noise
        labels[:8] = UNLABELLED
        for kind, values in (("images", pixels.astype(np.uint8)), ("labels", labels)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / kind / f"{k}.png")


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """A whole recipe over the pictures in `folder`; `changes` replace top-level entries."""
    bundle = {
        "format": 1,
        "name": "tiny",
        "version": "0.0.1",
        "licence": "Apache-2.0",
        "network": {"library": "foveate", "architecture": "fcn", "in_channels": 3, "scale_channel": True},
        "patch_size": PATCH,
        "fovs": [PATCH, 2 * PATCH],
        "foveation": {"downsample": 8, "hidden": 8},
        "mapping": "explicit",
        "policy": "mode",
        "input": {
            "kind": "scene",
            "bands": ["red", "green", "blue"],
            "dtype": "uint8",
            "value_scale": 255,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "spacing": None,
            "spacing_unit": None,
            "spacing_range": None,
        },
        "classes": [
            {"value": 0, "name": "red", "color": [200, 40, 40]},
            {"value": 1, "name": "blue", "color": [40, 40, 200]},
        ],
        "provenance": {"data": "invented"},
    }
    return {
        "bundle": bundle,
        "data": {
            "folder": str(folder),
            "train": [{"images": "images/[01].png", "labels": "labels/[01].png"}],
            "test": [{"images": "images/2.png", "labels": "labels/2.png"}],
            "labels": [
                {"low": 0, "high": 0, "value": 0},
                {"low": 1, "high": 1, "value": 1},
                {"low": UNLABELLED, "high": UNLABELLED, "value": None},
            ],
            "holdout": {"kind": "corner", "part": 2},
        },
        "augmentation": {"zoom": 0.2, "zoom_share": 0.5, "gain": 0.1, "contrast": 0.1, "gamma": 0.1},
        "network": {
            "steps": 40,
            "batch": 4,
            "fov_shares": [0.6, 0.4],
            "class_centred": 0.5,
            "class_weight_power": 0.35,
            "encoder_weights": None,
            "encoder_learning_rate": 1e-3,
            "decoder_learning_rate": 1e-2,
            "weight_decay": 1e-3,
            "poly_power": 0.9,
        },
        "foveation": {"steps": 60, "learning_rate": 1e-2, "weight_decay": 1e-3, "every": 1, "variants": 2},
        "seed": 3,
        "threads": 1,
        "checkpoint_minutes": 5,
        "run": str(folder / "run"),
        "output": str(folder / "bundle"),
        **changes,
    }


def write_recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(folder, **changes)))
    return path

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


def bundle_card(**changes: Any) -> dict[str, Any]:
    """The card of a tiny bundle; `changes` replace its entries."""
    return {
        "format": 1,
        "name": "tiny",
        "version": "0.0.1",
        "licence": "Apache-2.0",
        "network": {"library": "foveate", "architecture": "fcn", "in_channels": 3, "scale_channel": False},
        "patch_size": PATCH,
        "fovs": [PATCH, 2 * PATCH],
        "foveation": {"downsample": 8, "hidden": 8},
        "mapping": "implicit",
        "policy": "mean",
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
        **changes,
    }


def _shared(folder: Path) -> dict[str, Any]:
    return {
        "data": {
            "layout": "pairs",
            "folder": str(folder),
            "train": [{"images": "images/[01].png", "labels": "labels/[01].png"}],
            "test": [{"images": "images/2.png", "labels": "labels/2.png"}],
            "labels": [
                {"low": 0, "high": 0, "value": 0},
                {"low": 1, "high": 1, "value": 1},
                {"low": UNLABELLED, "high": UNLABELLED, "value": None},
            ],
        },
        "seed": 3,
        "threads": 1,
        "loaders": 0,
        "checkpoint_minutes": 5,
        "run": str(folder / "run"),
    }


def joint_recipe(folder: Path, **training: Any) -> dict[str, Any]:
    """Joint training over the pictures in `folder`, by the policy mean; `training` replaces entries of its schedule."""
    return {
        **_shared(folder),
        "bundle": bundle_card(),
        "augmentation": {"right_angles": True, "gain": 0.1, "gamma": 0.1},
        "training": {
            "method": "joint",
            "policy": "mean",
            "images": 2,
            "locations": 2,
            "steps": 20,
            "optimiser": {"name": "adamw", "learning_rate": 1e-2, "weight_decay": 1e-3},
            "loss": {"class_weight_power": 0.35},
            **training,
        },
    }


def staged_recipe(folder: Path) -> dict[str, Any]:
    """Staged training with explicit mapping over the pictures in `folder`."""
    shared = _shared(folder)
    network = {"library": "foveate", "architecture": "fcn", "in_channels": 3, "scale_channel": True}
    return {
        **shared,
        "bundle": bundle_card(network=network, mapping="explicit", policy="mode"),
        "data": {**shared["data"], "holdout": {"kind": "corner", "part": 2}},
        "augmentation": {"right_angles": True, "zoom": 0.2, "zoom_share": 0.5, "gain": 0.1, "contrast": 0.1},
        "training": {
            "method": "staged",
            "network": {
                "steps": 40,
                "batch": 4,
                "fov_shares": [0.6, 0.4],
                "class_centred": 0.5,
                "optimiser": {"name": "adamw", "learning_rate": 1e-2, "weight_decay": 1e-3, "decay_on": "all"},
                "loss": {"class_weight_power": 0.35},
            },
            "foveation": {"steps": 60, "learning_rate": 1e-2, "weight_decay": 1e-3, "every": 1, "variants": 2},
        },
        "output": str(folder / "bundle"),
    }


def write_yaml(path: Path, entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return path

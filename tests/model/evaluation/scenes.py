"""Labelled pictures on disk, and bundles that know or half know their answer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model.bundle import save_bundle
from model.datasets.config import PairsData
from model.datasets.labelled import LabelledImage, open_labelled
from model.datasets.layouts import find_pairs
from model.foveation import FoveationModule
from model.networks.build import build_network
from model.predictor import Predictor
from tests.raster.cards import make_card

UNLABELLED = 9
NAMES = ("red", "green", "blue")
PATCH = 32


def write_pair(folder: Path, name: str, pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """`images/NAME.png` and `labels/NAME.png` below `folder`."""
    for kind, values in (("images", pixels), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / kind / f"{name}.png")


def stripes(width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pure red, green and blue in diagonal blocks of 16 pixels, and which of them it is."""
    labels = (np.indices((height, width)) // 16).sum(axis=0).astype(np.uint8) % 3
    return np.eye(3, dtype=np.uint8)[labels] * 255, labels


def _entries(classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The card's classes of these names."""
    return [{"value": k, "name": name, "color": [80 * k, 40, 200]} for k, name in enumerate(classes)]


CLASSES = _entries(NAMES)


def data_entries(folder: Path, **changes: Any) -> dict[str, Any]:
    """The data of a recipe over the pairs in `folder`: all of them are test images."""
    scenes = [{"images": "images/*.png", "labels": "labels/*.png"}]
    rules = [{"low": k, "high": k, "value": k} for k in range(3)]
    rules.append({"low": UNLABELLED, "high": UNLABELLED, "value": None})
    entries = {"layout": "pairs", "folder": str(folder), "train": scenes, "test": scenes, "labels": rules}
    return entries | changes


def make_rgb_bundle(directory: Path, *, classes: tuple[str, ...] = NAMES, gain: float = 20.0, **changes: Any) -> Path:
    """Class k is where band k is brightest: a linear network over three bands, as sure as `gain` makes it."""
    entries = _entries(classes)
    card = make_card(
        **{
            "name": "rgb",
            "kind": "scene",
            "spacing": None,
            "patch_size": PATCH,
            "fovs": [PATCH, 2 * PATCH],
            "foveation": {"downsample": 8, "hidden": 8},
            "classes": entries,
            **changes,
        }
    )
    state = build_network(card.network, len(classes)).state_dict()
    state["head.weight"] = gain * torch.eye(len(classes), state["head.weight"].shape[1])[:, :, None, None]
    state["head.bias"] = torch.zeros(len(classes))
    foveation = None
    if card.foveation is not None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            foveation = FoveationModule.from_card(card.foveation, 3, len(card.fovs)).state_dict()
    save_bundle(directory, card, state, foveation, readme="-", training_yaml="{}")
    return directory


def opened(folder: Path, predictor: Predictor, index: int = 0) -> LabelledImage:
    """One of the test images in `folder`, as `predictor` reads it."""
    data = PairsData.model_validate(data_entries(folder))
    return open_labelled(find_pairs(data, "test")[index], data, predictor.card)

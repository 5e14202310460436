"""Small images with labels on disk, and the cards and data that go with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.schema import BundleCard
from model.datasets.config import PairsData
from tests.model.training.recipes import bundle_card

RULES = [{"low": k, "high": k, "value": k} for k in range(3)]
PATTERNS = {"images": "images/*.png", "labels": "labels/*.png"}


def card(classes: Sequence[int] = range(3), **changes: Any) -> BundleCard:
    """A bundle for 8-bit RGB of unknown scale, its `classes` by value; `changes` replace fields of its input."""
    cards = [{"value": value, "name": str(value), "color": [value] * 3} for value in classes]
    entries = bundle_card(foveation=None, policy="fixed:1", classes=cards)
    entries["input"] |= {"kind": "any", **changes}
    entries["network"] |= {"in_channels": len(entries["input"]["bands"])}
    return BundleCard.model_validate(entries)


def pairs_data(folder: Path, **changes: Any) -> PairsData:
    """Every image below `folder`/images, for training and for tests alike."""
    entries: dict[str, Any] = {
        "layout": "pairs",
        "folder": folder,
        "train": [PATTERNS],
        "test": [PATTERNS],
        "labels": RULES,
    }
    return PairsData.model_validate(entries | changes)


def save(path: Path, values: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def write_scene(
    folder: Path, name: str = "a", width: int = 80, height: int = 64, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Writes images/NAME.png (random colours) and labels/NAME.png (classes 0 to 2 in squares of 8); both arrays."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 255, (height, width, 3), np.uint8)
    coarse = random.integers(0, 3, (-(-height // 8), -(-width // 8)), np.uint8)
    classes = np.kron(coarse, np.ones((8, 8), np.uint8))[:height, :width]
    save(folder / f"images/{name}.png", pixels)
    save(folder / f"labels/{name}.png", classes)
    return pixels, classes

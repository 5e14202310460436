"""Cityscapes, fine annotations (Cordts et al. 2016): streets of 2048 x 1024 px, 19 classes."""

from pathlib import Path

from foveate.errors import ImageMissing
from model.datasets.classes import Labelling
from model.datasets.config import CityscapesData, LabelRule
from model.datasets.pair import Pair, Split
from model.datasets.splits import first_share, folder_of, required

__all__ = ["find", "labelling"]

_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label ids of the classes, road to bicycle; foveation-method.md, section 9."""
_LARGEST_ID = 33
_IMAGE = "_leftImg8bit"


def find(data: CityscapesData, split: Split) -> list[Pair]:
    """The pairs by city and name. The labels of the official test images are secret: `test` is the whole validation."""
    official = "train" if split == "train" else "val"
    folder = folder_of(data.folder / "leftImg8bit" / official, "Cityscapes' images")
    images = sorted(folder.glob(f"*/*{_IMAGE}.png"))
    if not images:
        raise ImageMissing(f"{folder} holds no CITY/*{_IMAGE}.png", hint="Unpack leftImg8bit_trainvaltest.zip there.")
    chosen = images if split == "test" else first_share(images, data.share)
    labels = data.folder / "gtFine" / official
    return [_pair(labels, image, turn if split == "train" else None) for turn, image in enumerate(chosen)]


def labelling(data: CityscapesData) -> Labelling:
    """The 19 classes of the benchmark; every other id is ignored."""
    other = [LabelRule(low=0, high=_LARGEST_ID, value=None), LabelRule(low=255, high=255, value=None)]
    return Labelling((*other, *(LabelRule(low=number, high=number, value=k) for k, number in enumerate(_IDS))))


def _pair(folder: Path, image: Path, turn: int | None) -> Pair:
    city = image.parent.name
    label = folder / city / f"{image.stem.removesuffix(_IMAGE)}_gtFine_labelIds.png"
    return Pair(f"{city}/{image.name}", (image,), (required(label, image),), turn=turn)

"""GlaS (Sirinukunwattana et al. 2017): H&E colon sections, every gland numbered, as the challenge published it."""

import re

from foveate.errors import ImageMissing
from model.datasets.classes import Labelling
from model.datasets.config import GlasData, LabelRule
from model.datasets.pair import Pair, Split
from model.datasets.splits import folder_of, required

__all__ = ["find", "labelling"]

_NAME = re.compile(r"(train|testA|testB)_(\d+)")


def find(data: GlasData, split: Split) -> list[Pair]:
    """The official split by number: `train`, or testA and then testB; there is no validation."""
    folder = folder_of(data.folder, "GlaS' images")
    if split == "validation":
        return []
    found = [(path, match) for path in folder.glob("*.bmp") if (match := _NAME.fullmatch(path.stem))]
    chosen = [(path, match[1], int(match[2])) for path, match in found if match[1].startswith(split)]
    if not chosen:
        raise ImageMissing(f"{folder} holds no {split}*_N.bmp", hint="Set data.folder to the unpacked Warwick QU set.")
    images = [path for path, _, _ in sorted(chosen, key=lambda one: one[1:])]
    return [
        Pair(path.name, (path,), (required(path.with_name(f"{path.stem}_anno.bmp"), path),), turn=turn)
        for path, turn in ((path, k if split == "train" else None) for k, path in enumerate(images))
    ]


def labelling(data: GlasData) -> Labelling:
    """Class 0 other and 1 gland; with `glass`, what is no gland is `within` and glands are the next free class."""
    other = 0 if data.glass is None else data.glass.within
    gland = 1 if data.glass is None else 1 + max(data.glass.within, data.glass.value)
    rules = (LabelRule(low=0, high=0, value=other), LabelRule(low=1, high=65535, value=gland))
    return Labelling(
        rules, glass=data.glass, objects=gland, gap=data.gap, gap_value=data.gap_value, holdout=data.holdout
    )

"""From a recipe's data to the pairs of a split, and to what their labels mean: one module for each layout."""

from typing import Any

from model.datasets import cityscapes, deepglobe, glas, gleason2019, pairs
from model.datasets.classes import Labelling
from model.datasets.config import Data
from model.datasets.pair import Pair, Split

__all__ = ["find_pairs", "labelling_of"]

_LAYOUTS: dict[str, Any] = {
    "pairs": pairs,
    "deepglobe": deepglobe,
    "cityscapes": cityscapes,
    "gleason2019": gleason2019,
    "glas": glas,
}


def find_pairs(data: Data, split: Split) -> list[Pair]:
    """The pairs of a split in the data set's order; ImageMissing or OptionInvalid names what is missing or wrong."""
    found: list[Pair] = _LAYOUTS[data.layout].find(data, split)
    return found


def labelling_of(data: Data) -> Labelling:
    """What the labels of this data set mean."""
    meaning: Labelling = _LAYOUTS[data.layout].labelling(data)
    return meaning

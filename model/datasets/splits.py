"""What the published data sets share: splits from the authors' lists or by a seed, and files that must be there."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from foveate.errors import ImageMissing, OptionInvalid
from model.datasets.pair import Split

__all__ = ["at_seed", "first_share", "folder_of", "found_stems", "listed_stems", "required"]

_T = TypeVar("_T")
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def listed_stems(lists: Path, split: Split) -> list[str]:
    """The stems of the images in `lists`/SPLIT.odgt, in its order: one JSON object a line, as the authors wrote them.

    Their folders are of the authors' own preparation, so only the name of `fpath_img` counts.
    """
    path = lists / f"{split}.odgt"
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageMissing(
            f"{path} cannot be read: {error}", hint="Copy the authors' lists there as train, validation and test.odgt."
        ) from error
    stems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            stems.append(Path(json.loads(line)["fpath_img"]).stem)
        except (ValueError, KeyError, TypeError) as error:
            raise OptionInvalid(
                f"{path}, line {number}: no JSON object with fpath_img", hint="Copy the authors' list again."
            ) from error
    return stems


def found_stems(folder: Path, pattern: str) -> list[str]:
    """The stems of the files in `folder` that match, sorted; ImageMissing where there are none."""
    stems = sorted(path.stem for path in folder.glob(pattern))
    if not stems:
        raise ImageMissing(f"{folder} holds no {pattern}", hint="Unpack the data set again.")
    return stems


def at_seed(items: Sequence[_T], parts: tuple[int, int, int], split: Split, seed: int) -> list[_T]:
    """The split of `items` after a permutation by `seed`, cut in the ratio of `parts` (train, validation, test)."""
    order = np.random.default_rng(seed).permutation(len(items))
    ends = np.rint(np.cumsum((0, *parts)) * (len(items) / sum(parts))).astype(int)
    index = _SPLITS.index(split)
    return [items[k] for k in order[ends[index] : ends[index + 1]]]


def first_share(items: Sequence[_T], share: float) -> list[_T]:
    """The first of `items`, at least one where there are any."""
    return list(items[: max(1, round(len(items) * share))])


def folder_of(path: Path, what: str) -> Path:
    """`path` itself, if it is a folder; ImageMissing names it."""
    if not path.is_dir():
        raise ImageMissing(f"there is no folder {path} ({what})", hint="Set data.folder to where the data set lies.")
    return path


def required(path: Path, image: Path) -> Path:
    """`path` itself, if the file is there; ImageMissing names it and the image that it belongs to."""
    if not path.is_file():
        raise ImageMissing(f"{image} has no labels: there is no {path}", hint="Unpack the data set again.")
    return path

"""Gleason2019 (Nir et al. 2018): prostate cores of about 5120 x 5120 px, each graded by up to six pathologists.

Their maps are fused once by STAPLE and kept as PNG; training and evaluation see the central crop.
"""

from collections.abc import Sequence
from pathlib import Path

from foveate.errors import ImageMissing
from foveate.progress import show_progress
from model.datasets.classes import Labelling
from model.datasets.config import GleasonData, LabelRule
from model.datasets.pair import Pair, Split
from model.datasets.splits import at_seed, folder_of, found_stems, listed_stems
from model.datasets.staple import UNDECIDED, fuse

__all__ = ["find", "labelling"]

_IMAGES = "Train Imgs"
_RATERS = tuple(f"Maps{k}_T" for k in range(1, 7))
_MAP_SUFFIX = "_classimg_nonconvex.png"
_PARTS = (238, 30, 30)
_GRADES: dict[int, dict[int, int]] = {
    0: {3: 1, 4: 2, 5: 3},
    30: {3: 1, 4: 2},
    3: {3: 1},
    4: {4: 1},
    5: {5: 1},
    6: {3: 1, 4: 1, 5: 1},
}
"""The class of each grade by the number of the authors' mapping; every other id is 0, benign."""
_LARGEST_ID = 6


def find(data: GleasonData, split: Split) -> list[Pair]:
    """The pairs in the authors' order, or in that of the seed; fuses the maps that were not fused before."""
    folder = folder_of(data.folder / _IMAGES, "Gleason2019's images")
    if data.lists is not None:
        stems = listed_stems(data.lists, split)
    else:
        stems = at_seed(found_stems(folder, "slide*_core*.jpg"), _PARTS, split, data.seed)
    images = [folder / f"{stem}.jpg" for stem in stems]
    _fuse_missing(data, images)
    return [
        Pair(image.name, (image,), (_fused(data, image),), turn=turn if split == "train" else None, crop=data.crop)
        for turn, image in enumerate(images)
    ]


def labelling(data: GleasonData) -> Labelling:
    """Grades to classes by the authors' mapping `data.grades`; where the raters leave it undecided, ignored."""
    classes = _GRADES[data.grades]
    rules = [LabelRule(low=grade, high=grade, value=classes.get(grade, 0)) for grade in range(_LARGEST_ID + 1)]
    return Labelling((*rules, LabelRule(low=UNDECIDED, high=UNDECIDED, value=None)))


def _fuse_missing(data: GleasonData, images: Sequence[Path]) -> None:
    maps = {image: _maps(data, image) for image in images if not _fused(data, image).is_file()}
    if not maps:
        return
    with show_progress("fusing the raters' maps") as report:
        for done, (image, present) in enumerate(maps.items()):
            report(done / len(maps), image.name)
            fuse(present, _fused(data, image))


def _fused(data: GleasonData, image: Path) -> Path:
    return data.fused / f"fused_{image.stem}{_MAP_SUFFIX}"


def _maps(data: GleasonData, image: Path) -> list[Path]:
    """The maps of the raters who graded this image, at least one."""
    if not image.is_file():
        raise ImageMissing(f"there is no {image}", hint="Unpack the data set again, or mend the list.")
    maps = [data.folder / rater / f"{image.stem}{_MAP_SUFFIX}" for rater in _RATERS]
    present = [path for path in maps if path.is_file()]
    if not present:
        raise ImageMissing(f"{image} has no map in {_RATERS[0]} to {_RATERS[-1]}", hint="Unpack the maps again.")
    return present

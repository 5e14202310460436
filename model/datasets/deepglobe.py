"""DeepGlobe land cover (Demir et al. 2018): 803 labelled scenes of 2448 x 2448 px, split as in the foveation paper."""

from pathlib import Path

from foveate.errors import ImageMissing
from model.datasets.classes import Labelling
from model.datasets.config import DeepGlobeData, LabelRule
from model.datasets.pair import Pair, Split
from model.datasets.splits import at_seed, first_share, folder_of, found_stems, listed_stems

__all__ = ["find", "labelling"]

_PARTS = (455, 207, 141)
_COLOURS = ((0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0))
"""Urban, agriculture, rangeland, forest, water, barren and, last, unknown."""
_UNKNOWN = 6
_SUFFIX = "_sat"


def find(data: DeepGlobeData, split: Split) -> list[Pair]:
    """The pairs in the authors' order, or in that of the seed."""
    folder = folder_of(data.folder / "land-train", "DeepGlobe's labelled images")
    if data.lists is not None:
        stems = listed_stems(data.lists, split)
    else:
        stems = at_seed(found_stems(folder, f"*{_SUFFIX}.jpg"), _PARTS, split, data.seed)
    chosen = stems if split == "test" else first_share(stems, data.share)
    return [_pair(folder, stem, turn if split == "train" else None) for turn, stem in enumerate(chosen)]


def labelling(data: DeepGlobeData) -> Labelling:
    """The data set's colours, and the numbers of the authors' prepared labels; unknown is ignored."""
    values = [None if k == _UNKNOWN else k for k in range(len(_COLOURS))]
    colours = [LabelRule(color=colour, value=value) for colour, value in zip(_COLOURS, values, strict=True)]
    numbers = [LabelRule(low=k, high=k, value=value) for k, value in enumerate(values)]
    # A mask that some program made a palette of still means its colours.
    return Labelling((*colours, *numbers), threshold=128, palettes="colours")


def _pair(folder: Path, stem: str, turn: int | None) -> Pair:
    image = folder / f"{stem}.jpg"
    identity = stem.removesuffix(_SUFFIX)
    # The data set's own mask in colours, else the authors' prepared numbers.
    found = [path for path in (folder / f"{identity}_mask.png", folder / f"{identity}_label.png") if path.is_file()]
    if not image.is_file() or not found:
        missing = image if not image.is_file() else folder / f"{identity}_mask.png"
        raise ImageMissing(f"DeepGlobe's {identity} is not whole: there is no {missing}", hint="Unpack it again.")
    return Pair(image.name, (image,), (found[0],), turn=turn)

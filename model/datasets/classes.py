"""From what a label file stores to the classes of the network, by the rules of a recipe or a data set."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foveate.errors import OptionInvalid
from foveate.schema import BundleCard, ImageInfo
from model.datasets.config import Glass, Holdout, LabelRule
from raster.alignment import misalignment
from raster.geometry import Region
from raster.image import Pixels, RasterImage
from raster.labels import LabelFile
from raster.polygons import PolygonImage, Polygons, is_geojson, read_polygons

__all__ = ["IGNORE", "Labelling", "as_channels", "channels_of", "open_classes", "open_objects"]

IGNORE = 255
"""The label that is neither learnt nor scored; also what lies outside an image."""
_UNKNOWN = -1
_OBJECTS_PER_PART = 2**16
_ALIGNED = 1.0
"""Pixels that labels may lie beside their image: half a one is a matter of pixel centres and corners."""


@dataclass(frozen=True)
class Labelling:
    """What the labels of a data set mean; fields as in `model.datasets.config.PairsData`.

    Where two rules speak of one value, the later one holds.
    """

    rules: tuple[LabelRule, ...]
    background: int | None = None
    threshold: int | None = None
    """Bytes of colour masks below it count as 0, the others as 255; None: colours must be exact."""
    glass: Glass | None = None
    objects: int | None = None
    gap: int = 0
    gap_value: int | None = None
    palettes: Literal["numbers", "colours"] = "numbers"
    """What of a palette raster counts, where there are rules for both."""
    holdout: Holdout | None = None

    @property
    def values(self) -> set[int]:
        """The values of all classes that are spoken of, as a bundle's card has them."""
        spoken = [*(rule.value for rule in self.rules), self.background, self.objects, self.gap_value]
        if self.glass is not None:
            spoken += [self.glass.within, self.glass.value]
        return {value for value in spoken if value is not None}

    @cached_property
    def numbers(self) -> NDArray[np.int16]:
        """(65536,) the class of every number, IGNORE, or -1 where no rule speaks of it."""
        table = np.full(2**16, _UNKNOWN, np.int16)
        for rule in self.rules:
            if rule.low is not None and rule.high is not None:
                table[rule.low : rule.high + 1] = _class(rule.value)
        return table

    @cached_property
    def colours(self) -> dict[int, int]:
        """The class, or IGNORE, by colour as 0xRRGGBB."""
        return {_packed(rule.color): _class(rule.value) for rule in self.rules if rule.color is not None}

    @cached_property
    def names(self) -> dict[str, int]:
        """The class, or IGNORE, by the name that a polygon's class has."""
        return {rule.name: _class(rule.value) for rule in self.rules if rule.name is not None}


def channels_of(card: BundleCard) -> NDArray[np.int16]:
    """(256,): the network's channel of every class value, IGNORE for IGNORE, -1 for the others."""
    table = np.full(256, -1, np.int16)
    table[IGNORE] = IGNORE
    for channel, entry in enumerate(card.classes):
        table[entry.value] = channel
    return table


def as_channels(
    values: NDArray[np.uint8], channels: NDArray[np.int16], name: str, card: BundleCard
) -> NDArray[np.uint8]:
    """`values` of classes as channels of the card's network, by the table of `channels_of`; `name` is the image's.

    OptionInvalid where a value is none of the card's classes.
    """
    found = channels[values]
    if (found < 0).any():
        value = int(values[found < 0][0])
        raise OptionInvalid(
            f"{name} has labels of class {value}, which {card.name} does not know",
            hint=f"Its classes are {', '.join(f'{c.value} {c.name}' for c in card.classes)}: mend data.labels.",
        )
    return found.astype(np.uint8)


def open_classes(path: Path, labelling: Labelling, like: ImageInfo) -> RasterImage:
    """The classes in a label file as an image of one uint8 band; IGNORE where nothing is to be learnt.

    `like` describes the image that they belong to. OptionInvalid: another size, labels of a kind that no rule speaks
    of, and, when it is read, a value that no rule speaks of.
    """
    if is_geojson(path):
        polygons = read_polygons(path, like)
        background = IGNORE if labelling.background is None else labelling.background
        return PolygonImage(polygons, _classes_by_name(path, polygons, labelling), background, like)
    file = LabelFile(path)
    try:
        _check_size(path, file.info, like)
        return _ClassImage(file, labelling)
    except BaseException:
        file.close()
        raise


def open_objects(path: Path, labelling: Labelling, like: ImageInfo, part: int) -> RasterImage:
    """The numbers of single objects in a label file as an image of one int32 band, 0 outside; by part of a mosaic."""
    if is_geojson(path):
        polygons = read_polygons(path, like)
        classes = _classes_by_name(path, polygons, labelling)
        first = 1 + part * _OBJECTS_PER_PART
        numbers = [first + k if value == labelling.objects else 0 for k, value in enumerate(classes)]
        return PolygonImage(polygons, numbers, 0, like, "int32")
    file = LabelFile(path)
    if _is_by_colour(file, labelling):
        file.close()
        raise OptionInvalid(
            f"{path} is read by its colours, which do not tell one object from another",
            hint="Give labels that number the objects, or leave data.objects out.",
        )
    return _ObjectImage(file, labelling, part * _OBJECTS_PER_PART)


def _is_by_colour(file: LabelFile, labelling: Labelling) -> bool:
    if file.kind != "palette":
        return file.kind == "colours"
    return not (labelling.numbers >= 0).any() or (labelling.palettes == "colours" and bool(labelling.colours))


class _ClassImage:
    """A label file through a labelling. Owns and closes the file."""

    def __init__(self, file: LabelFile, labelling: Labelling) -> None:
        self._file, self._labelling = file, labelling
        self._by_colour = _is_by_colour(file, labelling)
        if not (labelling.colours if self._by_colour else (labelling.numbers >= 0).any()):
            raise OptionInvalid(
                f"{file.path} holds {file.kind}, and data.labels has no rule for them",
                hint="Give rules with `color` for colour masks, with `low` and `high` for numbers and palettes.",
            )

    @property
    def info(self) -> ImageInfo:
        return self._file.info.model_copy(update={"bands": ["gray"], "dtype": "uint8"})

    def read(self, level: int, region: Region) -> Pixels:
        stored = self._file.read(level, region).values
        classes = self._of_colours(stored) if self._by_colour else self._of_numbers(stored[..., 0])
        return Pixels(classes[..., None], None)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None

    def close(self) -> None:
        self._file.close()

    def _of_numbers(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        classes = self._labelling.numbers[stored]
        unknown = classes == _UNKNOWN
        if unknown.any():
            # A declared no-data value needs no rule of its own.
            unknown &= stored != self._file.nodata if self._file.nodata is not None else True
            if unknown.any():
                raise _unknown(self._file.path, str(stored[unknown][0]))
            classes = np.where(classes == _UNKNOWN, IGNORE, classes)
        return np.asarray(classes, np.uint8)

    def _of_colours(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        colours = self._file.palette_colours(stored[..., 0]) if self._file.kind == "palette" else stored
        if self._labelling.threshold is not None:
            colours = np.where(colours < self._labelling.threshold, 0, 255)
        packed = np.asarray(colours, np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        known = np.array(sorted(self._labelling.colours), np.int32)
        place = np.searchsorted(known, packed).clip(max=len(known) - 1)
        unknown = known[place] != packed
        if unknown.any():
            code = int(packed[unknown][0])
            raise _unknown(self._file.path, f"colour ({code >> 16}, {code >> 8 & 255}, {code & 255})")
        values = np.array([self._labelling.colours[int(code)] for code in known], np.uint8)
        return np.asarray(values[place])


class _ObjectImage:
    """The numbers of a label file that mean the class of objects. Owns and closes the file."""

    def __init__(self, file: LabelFile, labelling: Labelling, offset: int) -> None:
        self._file, self._labelling, self._offset = file, labelling, offset

    @property
    def info(self) -> ImageInfo:
        return self._file.info.model_copy(update={"bands": ["gray"], "dtype": "int32"})

    def read(self, level: int, region: Region) -> Pixels:
        stored = self._file.read(level, region).values[..., :1]
        is_object = self._labelling.numbers[stored] == self._labelling.objects
        return Pixels(np.where(is_object, stored.astype(np.int32) + self._offset, 0).astype(np.int32), None)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None

    def close(self) -> None:
        self._file.close()


def _classes_by_name(path: Path, polygons: Polygons, labelling: Labelling) -> list[int]:
    unknown = next((name for name in polygons.names if name not in labelling.names), None)
    if unknown is not None:
        raise _unknown(path, f"class {unknown!r}")
    return [labelling.names[name] for name in polygons.names]


def _check_size(path: Path, labels: ImageInfo, image: ImageInfo) -> None:
    if (labels.width, labels.height) != (image.width, image.height):
        raise OptionInvalid(
            f"{path} has {labels.width} x {labels.height} px, and its image {image.name} has "
            f"{image.width} x {image.height}",
            hint="Pair images with labels of the same size.",
        )
    off = misalignment(image, labels)
    if off is not None and off > _ALIGNED:
        raise OptionInvalid(
            f"{path} lies elsewhere than its image {image.name}: a corner is {off:.3g} pixels off",
            hint="Warp the labels to the image's grid, or remove a georeference that is wrong.",
        )


def _unknown(path: Path, what: str) -> OptionInvalid:
    return OptionInvalid(f"{path}: label {what} is in no rule of data.labels", hint="Add a rule, or map it to null.")


def _class(value: int | None) -> int:
    return IGNORE if value is None else value


def _packed(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]

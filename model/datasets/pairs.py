"""The general layout: pairs of image and labels below one folder, matched by patterns or listed in a CSV file."""

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from foveate.errors import ImageMissing, OptionInvalid
from model.datasets.classes import Labelling
from model.datasets.config import PairsData, Scenes
from model.datasets.pair import Pair, Split

__all__ = ["find", "labelling"]


def find(data: PairsData, split: Split) -> list[Pair]:
    """The pairs of every entry of the split, in the recipe's order."""
    scenes = {"train": data.train, "validation": data.validation, "test": data.test}[split]
    found = [pair for scene in scenes for pair in _pairs(data.folder, scene)]
    if split != "train":
        return found
    return [replace(pair, turn=turn) for turn, pair in enumerate(found)]


def labelling(data: PairsData) -> Labelling:
    """As the recipe says it."""
    return Labelling(
        tuple(data.labels),
        background=data.background,
        glass=data.glass,
        objects=data.objects,
        gap=data.gap,
        gap_value=data.gap_value,
        holdout=data.holdout,
    )


def _pairs(folder: Path, scene: Scenes) -> Iterator[Pair]:
    if scene.csv is not None:
        yield from _listed(folder, folder / scene.csv)
        return
    assert scene.images is not None and scene.labels is not None
    images = _matches(folder, scene.images)
    labels = _partners(folder, scene, images)
    if scene.mosaic is None:
        for image, label in zip(images, labels, strict=True):
            yield Pair(str(image.relative_to(folder)), (image,), (label,))
        return
    columns, rows = scene.mosaic
    if columns * rows != len(images):
        raise OptionInvalid(
            f"{scene.images} matches {len(images)} files, a mosaic of {columns} x {rows} has {columns * rows} parts",
            hint="Mend the pattern or the mosaic's size.",
        )
    yield Pair(scene.images, tuple(images), tuple(labels), columns)


def _partners(folder: Path, scene: Scenes, images: list[Path]) -> list[Path]:
    """The label file of each image: the one whose wildcards stand for the same text."""
    assert scene.images is not None and scene.labels is not None
    labels = {_wild(path, folder, scene.labels): path for path in _matches(folder, scene.labels)}
    if len(images) != len(labels):
        raise OptionInvalid(
            f"{folder}: {len(images)} images match {scene.images}, {len(labels)} labels {scene.labels}",
            hint="Choose patterns that match one label file for each image.",
        )
    for image in images:
        if _wild(image, folder, scene.images) not in labels:
            raise OptionInvalid(
                f"{image} has no label file: none that matches {scene.labels} has the same text for the wildcards",
                hint="Write what the names of image and label do not share outside of the wildcards.",
            )
    return [labels[_wild(image, folder, scene.images)] for image in images]


def _wild(path: Path, folder: Path, pattern: str) -> tuple[str, ...]:
    """What the pattern's wildcards stand for in a path that it matches."""
    pieces = re.split(r"(\*\*/?|\*|\?|\[[^\]]+\])", pattern)
    spelled = {"**": "(.*)", "**/": "((?:.*/)?)", "*": "([^/]*)", "?": "([^/])"}
    expression = "".join(
        (spelled.get(piece) or f"({piece.replace('[!', '[^')})") if wild else re.escape(piece)
        for piece, wild in zip(pieces, itertools.cycle((False, True)), strict=False)
    )
    found = re.fullmatch(expression, path.relative_to(folder).as_posix())
    return found.groups() if found else (path.stem,)


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts part_2 before part_10."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", str(path))]


def _matches(folder: Path, pattern: str) -> list[Path]:
    try:
        found = sorted(folder.glob(pattern), key=_by_number)
    except (NotImplementedError, ValueError) as error:
        raise OptionInvalid(f"{pattern!r} is no pattern: {error}", hint="Give it relative to data.folder.") from error
    if not found:
        raise ImageMissing(f"no file matches {folder / pattern}", hint="Set data.folder to where the data lie.")
    return found


def _listed(folder: Path, path: Path) -> Iterator[Pair]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise ImageMissing(f"{path} cannot be read: {error.strerror}", hint="Give the path of the list.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise OptionInvalid(f"{path} is no CSV file: {error}", hint="Save the list as UTF-8 CSV.") from error
    if not rows:
        raise OptionInvalid(f"{path} lists nothing", hint="Give a first line `image,label` and a line for each pair.")
    for number, row in rows:
        if not row.get("image") or not row.get("label"):
            raise OptionInvalid(
                f"{path}, line {number}: image or label is missing",
                hint="Give a first line `image,label` and a line for each pair.",
            )
        image, label = folder / row["image"], folder / row["label"]
        for named in (image, label):
            if not _is_there(named):
                raise ImageMissing(f"{path}, line {number}: there is no {named}", hint="Mend the list or data.folder.")
        yield Pair(row["image"], (image,), (label,))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no file system takes such a name
        return False

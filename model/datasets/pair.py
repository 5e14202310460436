"""One image and its labels as files: what a layout finds, and what other processes are told to open."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Pair", "Split"]

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Pair:
    """An image with its labels; picklable.

    `images` and `labels` are one file (or DICOM folder) each, or the parts of a mosaic row by row, `columns` in a row.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    columns: int = 1
    turn: int | None = None
    """Place among the training images, which decides what of it is held out; None: not a training image."""
    crop: int | None = None
    """Side of the central square that is used [level-0 px]; None: the whole."""

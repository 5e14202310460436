"""overlay.png: the mask over the image, with a legend, for eyes only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from foveate.schema import NODATA, ClassCard, Rgb
from raster.cog import reading_back
from raster.geometry import Size
from raster.whole_file import whole_file

PICTURE_SIDE = 2048
"""Of the image alone, at most: enough for a screen, and quick to write."""

LONGEST_SIDE = 4096
"""Of the picture, legend included."""

_LARGEST_FONT = 44
"""Of the legend, in pixels."""

_SMALLEST_SIDE = 640
"""Smaller images are enlarged by whole factors, so that the legend beside them can be read."""

_OPACITY = 0.42
_LINE_OPACITY = 0.95
_UNEXAMINED_FADE, _FADED = 0.55, 235
_PAPER: Rgb = (255, 255, 255)
_INK: Rgb = (32, 33, 36)
_FAINT_INK: Rgb = (112, 117, 122)
_NAME_CHARACTERS = 28


@dataclass(frozen=True)
class _Entry:
    """One line of the legend; a colour of None is the swatch of what was not examined."""

    color: Rgb | None
    name: str
    share: str


def read_mask(path: Path, size: Size, covered: tuple[float, float]) -> NDArray[np.uint8]:
    """The mask at `path` at the size of a picture, uint8 (height, width), from its mode overviews.

    The picture shows the first `covered` pixels of the mask, (x, y): the last ones may reach beyond the image.
    """
    with reading_back(path) as mask:
        wide, high = (
            math.ceil(side * whole / part)
            for side, whole, part in zip((size.width, size.height), (mask.width, mask.height), covered, strict=True)
        )
        labels: NDArray[np.uint8] = mask.read(1, out_shape=(high, wide))
    return labels[: size.height, : size.width]


def write_overlay(
    path: Path,
    thumbnail: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    classes: Sequence[ClassCard],
    counts: Sequence[int],
) -> None:
    """Write the picture.

    thumbnail: uint8 (height, width, 3), at most PICTURE_SIDE long and high. labels: uint8, of the same height
    and width, 255 = not examined. counts: pixels of each value in the whole mask, 256 numbers. Raises DiskFull.
    """
    factor = max(1, -(-_SMALLEST_SIDE // max(labels.shape)))
    thumbnail, labels = (np.repeat(np.repeat(array, factor, 0), factor, 1) for array in (thumbnail, labels))
    picture = _painted(thumbnail, labels, classes)
    sheet = np.asarray(_with_legend(picture, _entries(classes, counts)))
    with whole_file(path) as partial:
        # Pillow tries every filter on every row, in twice the time, and makes photographs no smaller; nor does more
        # effort.
        partial.write_bytes(imagecodecs.png_encode(sheet, level=1, filter=imagecodecs.PNG.FILTER.UP))


def _painted(thumbnail: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[ClassCard]) -> Image.Image:
    """Classes tint the image, their boundaries are drawn in the full colour, the rest is faded to grey."""
    colors = np.full((256, 3), 255, dtype=np.uint8)
    for card in classes:
        colors[card.value] = card.color
    image, values = Image.fromarray(thumbnail), Image.fromarray(labels).convert("P")
    values.putpalette(colors.tobytes())
    tints = values.convert("RGB")
    lines = Image.fromarray(_boundaries(labels, max(1, round(max(labels.shape) / 1400))))
    painted = Image.composite(Image.blend(image, tints, _LINE_OPACITY), Image.blend(image, tints, _OPACITY), lines)
    unexamined = labels == NODATA
    if unexamined.any():
        grey, paper = image.convert("L"), Image.new("L", image.size, _FADED)
        painted.paste(Image.blend(grey, paper, _UNEXAMINED_FADE).convert("RGB"), mask=Image.fromarray(unexamined))
    return painted


def _boundaries(labels: NDArray[np.uint8], thickness: int) -> NDArray[np.bool_]:
    """Pixels within `thickness` of a pixel of another value."""
    lines = np.zeros(labels.shape, dtype=bool)
    for distance in range(1, thickness + 1):
        down = labels[distance:] != labels[:-distance]
        across = labels[:, distance:] != labels[:, :-distance]
        lines[distance:] |= down
        lines[:-distance] |= down
        lines[:, distance:] |= across
        lines[:, :-distance] |= across
    return lines


def _entries(classes: Sequence[ClassCard], counts: Sequence[int]) -> list[_Entry]:
    """The classes in their own order, and what was not examined if anything was not."""
    total = int(sum(counts))
    examined = total - int(counts[NODATA])
    entries = [
        _Entry(card.color, _shortened(card.name), _percent(int(counts[card.value]), examined)) for card in classes
    ]
    if examined < total:
        entries.append(_Entry(None, "not examined", _percent(total - examined, total) + " of the mask"))
    return entries


def _percent(part: int, whole: int) -> str:
    if part == 0 or whole == 0:
        return "0 %"
    percent = 100 * part / whole
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %"


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…"


def _font_size(longest_side: int) -> int:
    return min(_LARGEST_FONT, max(13, longest_side // 70))


def _legend_width(entries: Sequence[_Entry], font_size: int) -> int:
    """Margins, a swatch, the longest name and the longest share."""
    font = ImageFont.load_default(size=font_size)
    names = max(font.getlength(entry.name) for entry in entries)
    shares = max(font.getlength(entry.share) for entry in entries)
    return math.ceil(names + shares + 5.5 * font_size)


def _with_legend(picture: Image.Image, entries: Sequence[_Entry]) -> Image.Image:
    """The picture on white paper with the legend to its right."""
    size = _font_size(max(picture.size))
    font = ImageFont.load_default(size=size)
    line = round(size * 1.9)
    width = _legend_width(entries, size)
    height = min(LONGEST_SIDE, max(picture.height, line * len(entries) + size))
    sheet = Image.new("RGB", (picture.width + width, height), _PAPER)
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    left, right = picture.width + size, picture.width + width - size
    for index, entry in enumerate(entries):
        middle = size // 2 + index * line + line // 2
        _swatch(draw, (left, middle - size // 2, left + round(size * 1.3), middle + size // 2), entry.color)
        draw.text((left + round(size * 1.9), middle), entry.name, fill=_INK, font=font, anchor="lm")
        draw.text((right, middle), entry.share, fill=_FAINT_INK, font=font, anchor="rm")
    return sheet


def _swatch(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], color: Rgb | None) -> None:
    """A filled box; what was not examined gets grey, as in the picture."""
    draw.rectangle(box, fill=color or (205, 205, 205), outline=_FAINT_INK, width=max(1, (box[3] - box[1]) // 16))

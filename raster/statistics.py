"""statistics.json: how much of each class there is."""

import math
from collections.abc import Sequence
from typing import Any

from foveate.schema import NODATA, ClassCard, SpacingInfo


def statistics(
    classes: Sequence[ClassCard], counts: Sequence[int], covered: Sequence[int], spacing: SpacingInfo | None
) -> dict[str, Any]:
    """The content of statistics.json (design 4.2).

    counts: pixels of each mask value, 256 numbers (`MaskWriter.counts`). covered: the level-0 pixels under them, inside
    the region of interest. spacing: sides of a level-0 pixel; None: areas are in these pixels. Shares are of the
    examined pixels, and 0 where nothing was examined.
    """
    total = int(sum(counts))
    examined = total - int(counts[NODATA])
    return {
        "classes": [
            _class(card, int(counts[card.value]), examined, area(int(covered[card.value]), spacing)) for card in classes
        ],
        "examined_pixels": examined,
        "total_pixels": total,
    }


def area(pixels: int, spacing: SpacingInfo | None) -> tuple[float, str]:
    """The area of so many pixels and its unit: "um2" for slides, "m2" for scenes, else "px".

    Nine significant digits: more than any spacing has, and no noise from the multiplication.
    """
    if spacing is None:
        return pixels, "px"
    exact = pixels * spacing.x * spacing.y
    digits = 8 - math.floor(math.log10(exact)) if exact > 0 else 0
    return round(exact, digits), f"{spacing.unit}2"


def _class(card: ClassCard, pixels: int, examined: int, area: tuple[float, str]) -> dict[str, Any]:
    return {
        "value": card.value,
        "name": card.name,
        "pixels": pixels,
        "share": pixels / examined if examined else 0.0,
        "area": area[0],
        "area_unit": area[1],
    }

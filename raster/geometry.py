"""Points, sizes and regions in pixels, and the one place where (x, y) meets [row, column].

A pixel is an area: pixel k covers [k, k + 1), its centre is k + 0.5. Origin top left, y down. Rounding is a rule with a
name: origins go down, far edges go up (`snapped_out`).
"""

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, order=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def area(self) -> int:
        return self.width * self.height

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of an array of this size."""
        return self.height, self.width


@dataclass(frozen=True, order=True)
class Region:
    """The pixels [x, x + width) x [y, y + height) of a frame that the context names; may reach outside the image."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def between(cls, x0: int, y0: int, x1: int, y1: int) -> Self:
        """The region from corner to corner, far edges excluded; empty where the corners are the wrong way round."""
        return cls(x0, y0, max(0, x1 - x0), max(0, y1 - y0))

    @classmethod
    def of(cls, size: Size) -> Self:
        return cls(0, 0, size.width, size.height)

    @classmethod
    def snapped_out(cls, x0: float, y0: float, x1: float, y1: float) -> Self:
        """The smallest region of whole pixels that holds the rectangle."""
        return cls.between(math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1))

    @property
    def x1(self) -> int:
        return self.x + self.width

    @property
    def y1(self) -> int:
        return self.y + self.height

    @property
    def size(self) -> Size:
        return Size(self.width, self.height)

    @property
    def empty(self) -> bool:
        return self.width <= 0 or self.height <= 0

    def intersection(self, other: "Region") -> "Region":
        return Region.between(
            max(self.x, other.x), max(self.y, other.y), min(self.x1, other.x1), min(self.y1, other.y1)
        )

    def contains(self, other: "Region") -> bool:
        return self.x <= other.x and self.y <= other.y and other.x1 <= self.x1 and other.y1 <= self.y1

    def shifted(self, dx: int, dy: int) -> "Region":
        return Region(self.x + dx, self.y + dy, self.width, self.height)

    def grown(self, margin: int) -> "Region":
        return Region(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)

    def slices(self, origin_x: int = 0, origin_y: int = 0) -> tuple[slice, slice]:
        """Row and column slices of this region in an array whose first pixel is at the given origin."""
        return slice(self.y - origin_y, self.y1 - origin_y), slice(self.x - origin_x, self.x1 - origin_x)

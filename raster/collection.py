"""A GeoJSON file of features that come one by one, of which the small ones go where too many come."""

from array import array
from collections.abc import Iterable
from typing import IO

import numpy as np

from raster.features import Feature

_BETWEEN, _END = b",\n", b"\n]}\n"
_PART_BYTES = 1 << 20
"""That are moved at once: one region may be most of a mask."""


class FeatureFile:
    """Features in the order of their coming, in a `file` that is open for reading and writing and holds nothing yet.

    `room` bytes are left before them for the head, which is known last. Changes over time: `minimum`, the least area
    [mask pixels] of a feature, rises where more than `most` remain.
    """

    def __init__(self, file: IO[bytes], room: int, minimum: int, most: int) -> None:
        self.minimum = max(1, minimum)
        self._file, self._room, self._most = file, room, most
        self._areas, self._lengths = array("q"), array("q")
        file.seek(room)

    def extend(self, features: Iterable[Feature]) -> None:
        for feature in features:
            if feature.pixels < self.minimum:
                continue
            self._file.writelines([*feature.parts, _BETWEEN])
            self._areas.append(feature.pixels)
            self._lengths.append(sum(map(len, feature.parts)) + len(_BETWEEN))
            if len(self._areas) > 2 * self._most:
                self.settle()

    def settle(self) -> tuple[int, int]:
        """Raise the minimum until at most `most` remain; how many do, and the sum of their areas."""
        areas = np.array(self._areas, dtype=np.int64)
        if len(areas) > self._most:
            self.minimum = max(self.minimum, int(np.sort(areas)[-self._most - 1]) + 1)
        kept = areas >= self.minimum
        if not kept.all():
            self._close_up(kept.tolist())
        return len(self._areas), int(areas[kept].sum())

    def finish(self, head: bytes) -> None:
        """Write the head, which ends with the opening bracket of the features, and what closes them."""
        if len(head) >= self._room:
            raise ValueError(f"a head of {len(head)} bytes and a line break have no room in {self._room}")
        end = self._file.tell()
        self._file.seek(end - len(_BETWEEN) if self._lengths else end)
        self._file.write(_END)
        self._file.truncate()
        self._file.seek(0)
        self._file.write((head + b"\n").ljust(self._room))

    def _close_up(self, kept: list[bool]) -> None:
        """Move what is kept forward, over what is not."""
        areas, lengths = self._areas, self._lengths
        self._areas, self._lengths = array("q"), array("q")
        start = end = self._room
        for area, length, stays in zip(areas, lengths, kept, strict=True):
            if stays:
                if end < start:
                    self._move(start, end, length)
                self._areas.append(area)
                self._lengths.append(length)
                end += length
            start += length
        self._file.seek(end)

    def _move(self, start: int, end: int, length: int) -> None:
        """`length` bytes from `start` on, to `end`, which lies before it."""
        for done in range(0, length, _PART_BYTES):
            self._file.seek(start + done)
            part = self._file.read(min(_PART_BYTES, length - done))
            self._file.seek(end + done)
            self._file.write(part)

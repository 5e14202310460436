"""Images of which only some rows are in memory at a time: what is as large as a thumbnail of hundreds of gigapixels."""

import math
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.errors import NO_ROOM
from raster.whole_file import disk_full

__all__ = ["Rows", "RowsOnDisk", "WatchedRows", "bands"]

_BAND = 256


class Rows(Protocol):
    """What an array (height, width, …) and one on disk have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]: ...


class RowsOnDisk:
    """An array whose rows lie one after the other in a file without a name under `directory`, gone with the process.

    Read, not mapped: pages of a mapping count as memory. Changes over time: `append` adds the next rows.
    """

    def __init__(self, directory: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Without any rows yet."""
        self.shape, self.dtype = shape, dtype
        self._directory = directory
        with tempfile.TemporaryFile(dir=directory) as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._end = 0

    def append(self, rows: NDArray[Any]) -> None:
        """The next rows, of the array's own type and shape. Raises DiskFull."""
        assert rows.dtype == self.dtype and rows.shape[1:] == self.shape[1:], (rows.dtype, rows.shape)
        raw = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        try:
            while len(raw):
                count = os.pwrite(self._file, raw.data, self._end)
                raw, self._end = raw[count:], self._end + count
        except OSError as error:
            if error.errno in NO_ROOM:
                raise disk_full(self._directory / "the thumbnail", str(error)) from error
            raise

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        first, last, _ = rows.indices(self.shape[0])
        values = np.empty((last - first, *self.shape[1:]), self.dtype)
        raw, at = values.reshape(-1).view(np.uint8), first * math.prod(self.shape[1:]) * self.dtype.itemsize
        while len(raw):  # the system reads some GiB at once at most
            count = os.preadv(self._file, [raw.data], at)
            assert count, "rows that were never appended"
            raw, at = raw[count:], at + count
        return values


class WatchedRows:
    """The rows of another array. `watch` is called whenever some are asked for, and may raise to stop."""

    def __init__(self, rows: Rows, watch: Callable[[], None]) -> None:
        self._rows, self._watch = rows, watch

    @property
    def shape(self) -> tuple[int, ...]:
        return self._rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._rows.dtype

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        self._watch()
        return self._rows[rows]


def bands(height: int) -> Iterator[slice]:
    """Rows that are looked at together, from the top on."""
    for first in range(0, height, _BAND):
        yield slice(first, min(first + _BAND, height))

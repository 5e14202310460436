"""Images of which only some rows are in memory at a time: what is as large as a thumbnail of hundreds of gigapixels."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from foveate.errors import NO_ROOM
from raster.whole_file import disk_full

__all__ = ["Rows", "RowsOnDisk", "bands"]

_BAND = 256


class Rows(Protocol):
    """What an array (height, width, …) and one on disk have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class RowsOnDisk:
    """An array whose rows lie one after the other in a file; read, not mapped: pages of a mapping count as memory."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def new(cls, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Self:
        """Without any rows yet, in place of what was at `path`."""
        path.write_bytes(b"")
        return cls(path, shape, dtype)

    def append(self, rows: NDArray[Any]) -> None:
        """The next rows, of the array's own type and shape. Raises DiskFull."""
        assert rows.dtype == self.dtype and rows.shape[1:] == self.shape[1:], (rows.dtype, rows.shape)
        try:
            with self.path.open("ab") as file:
                file.write(np.ascontiguousarray(rows).data)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise disk_full(self.path, str(error)) from error
            raise

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        first, last, _ = rows.indices(self.shape[0])
        row = math.prod(self.shape[1:])
        values = np.fromfile(self.path, self.dtype, (last - first) * row, offset=first * row * self.dtype.itemsize)
        return values.reshape(last - first, *self.shape[1:])


def bands(height: int) -> Iterator[slice]:
    """Rows that are looked at together, from the top on."""
    for first in range(0, height, _BAND):
        yield slice(first, min(first + _BAND, height))

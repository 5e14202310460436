"""Room that is kept for Valkey where the disk is full: a file that is given up bit by bit."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from foveate.errors import NO_ROOM

SIZE = 16 << 20
"""Bytes of the whole file: many thousand changes of records."""
STEP = 4 << 20
"""Bytes that are given up at once: another writer may eat them before Valkey does."""
_PLENTY = 8 * SIZE
"""Free bytes with which the file is made whole again."""
_PROBE = 64 << 10

__all__ = ["SIZE", "STEP", "Ballast", "is_full"]


def is_full(directory: Path) -> bool:
    """Whether the disk, or the quota, of `directory` takes no more: found by trying, for quotas show nowhere."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in NO_ROOM
    return False


class Ballast:
    """The file at `path`; changes with the room on its disk. `full` and `free` look at a directory's disk."""

    def __init__(
        self,
        path: Path,
        *,
        full: Callable[[Path], bool] = is_full,
        free: Callable[[Path], int] = lambda directory: shutil.disk_usage(directory).free,
    ) -> None:
        self._path = path
        self._full = full
        self._free = free

    def lay(self) -> None:
        """Make the file whole where there is plenty of room; otherwise leave it as it is."""
        missing = SIZE - self._size()
        if missing <= 0 or self._free(self._path.parent) < _PLENTY:
            return
        try:
            with self._path.open("ab") as file:
                # Random, for file systems that store zeros in no room at all.
                for _ in range(0, missing, 1 << 20):
                    file.write(os.urandom(1 << 20))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise

    def release(self) -> int | None:
        """Bytes that were given up because the disk is full, 0 if there are no more; None: it is not full."""
        if not self._full(self._path.parent):
            return None
        given = min(STEP, self._size())
        if given:
            os.truncate(self._path, self._size() - given)
        return given

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

"""What does not fit in memory and will be wanted again: put aside on disk, so that nothing is decoded twice."""

import os
import pickle
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True)
class Slot(Generic[V]):
    """Where a value lies in the shelf's file, in bytes."""

    offset: int
    length: int


class Shelf(Generic[V]):
    """Values in one file without a name under `directory`, which is gone with the process, however that ends.

    `put` and `free` are for one thread at a time; `read` may go on beside them. The file grows to the most that ever
    lay in it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._end = 0

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._end

    def put(self, value: V) -> Slot[V] | None:
        """Where the value lies from now on; None where the disk does not take it."""
        packed = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        free = self._free[len(packed)]
        offset = free[-1] if free else self._end
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 (`close` closes it)
            if os.pwrite(self._file.fileno(), packed, offset) < len(packed):
                return None
        except OSError:
            return None
        if free:
            free.pop()
        else:
            self._end += len(packed)
        return Slot(offset, len(packed))

    def read(self, slot: Slot[V]) -> V:
        """The value in `slot`, which keeps it."""
        assert self._file is not None
        packed = os.pread(self._file.fileno(), slot.length, slot.offset)
        value: V = pickle.loads(packed)  # noqa: S301 (written by this process, in a file that no other can open)
        return value

    def free(self, slot: Slot[V]) -> None:
        """Another value may lie there."""
        self._free[slot.length].append(slot.offset)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

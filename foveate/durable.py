"""Files that appear whole and durable or not at all, and what a full disk means to the user."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from foveate.errors import DiskFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

__all__ = ["committed", "disk_errors"]


@contextmanager
def committed(path: Path) -> Iterator[BinaryIO]:
    """A binary file that stands under `path` when the block ends well: flushed to disk, then renamed into place.

    Raises DiskFull where the disk is; nothing is left behind on any error.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_errors(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left", "quota exceeded" and "file too large" into DiskFull naming the directory of `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFull(
            f"cannot write {path.name} in {path.parent}: {error.strerror}", hint="free some space there and try again"
        ) from error

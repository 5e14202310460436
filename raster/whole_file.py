"""Files that are there whole or not at all: a temporary name, fsync, one rename."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foveate.errors import NO_ROOM, DiskFull


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; after the block the file stands under its own name.

    After an exception neither name is left behind (an older file of the same name stays). Not `durable`: the disk may
    lag behind, for files whose readers notice what a power failure did to them. Raises DiskFull.
    """
    # Not the process's number: two containers may have the same.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        yield partial
        if durable:
            with partial.open("rb") as written:
                os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise disk_full(path, str(error)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, keys in the order given, so that the same content is the same bytes."""
    with whole_file(path) as partial:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def disk_full(path: Path, reason: str) -> DiskFull:
    free = shutil.disk_usage(path.parent).free / 2**20
    return DiskFull(
        f"{path.name} could not be written whole to {path.parent} ({free:.0f} MiB free there): {reason}",
        hint="free some space, or choose another directory; work may need ten bytes for each pixel of the mask",
    )

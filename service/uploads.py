"""Bytes from the network to disk: a few MiB at a time, hashed on the way, watched for size and free space."""

import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import anyio
from anyio.to_thread import run_sync

from foveate.errors import DiskFull, UploadInvalid, UploadTooLarge, disk_errors

BATCH = 2 << 20
"""Bytes collected before one hop to a thread writes and hashes them: a hop costs 150 µs (service-facts.md 4)."""
_MORE_ROOM = "remove images and jobs that are no longer needed, or give the service a larger disk"

__all__ = ["Limits", "Received", "free_bytes", "receive"]


@dataclass(frozen=True)
class Limits:
    """What an upload may take: `largest` bytes at most, and `reserve` bytes must stay free on the disk."""

    largest: int
    reserve: int
    free: Callable[[Path], int]
    """Free bytes of the disk that holds a path."""

    def check_size(self, size: int) -> None:
        if size > self.largest:
            raise UploadTooLarge(
                f"the upload has {size} bytes, and this service takes {self.largest} at most",
                hint="send a smaller file, or raise FOVEATE_MAX_UPLOAD_GB",
            )

    def check_space(self, directory: Path, more: int) -> None:
        """DiskFull unless `more` bytes fit beside the reserve."""
        free = self.free(directory)
        if free - more < self.reserve:
            message = f"{more} more bytes do not fit: {free} are free, of which {self.reserve} stay reserved"
            raise DiskFull(message, hint=_MORE_ROOM)


@dataclass(frozen=True)
class Received:
    sha256: str
    bytes: int


def free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


async def receive(stream: AsyncIterator[bytes], declared: int | None, target: Path, limits: Limits) -> Received:
    """Writes `stream` into the new file `target` and flushes it to the disk.

    `declared`: the Content-Length, checked before the first byte. The caller removes the directory of `target` when
    this raises: UploadTooLarge, DiskFull, UploadInvalid (nothing came), or whatever the connection's end raises.
    """
    if declared is not None:
        limits.check_size(declared)
        limits.check_space(target.parent, declared)
    digest = hashlib.sha256()
    received = 0
    with disk_errors(target, _MORE_ROOM), target.open("xb", buffering=0) as file:
        async for batch in _batches(stream):
            received += len(batch)
            limits.check_size(received)
            limits.check_space(target.parent, len(batch))
            await run_sync(_write, file, batch, digest.update)
        await run_sync(os.fsync, file.fileno())
    if received == 0:
        raise UploadInvalid("the upload is empty", hint="send the bytes of the image as the body of the request")
    return Received(digest.hexdigest(), received)


async def _batches(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    collected = bytearray()
    async for chunk in stream:
        collected += chunk
        if len(collected) >= BATCH:
            yield bytes(collected)
            collected.clear()
            # Lets other requests in even where the client is faster than the disk.
            await anyio.lowlevel.checkpoint()
    if collected:
        yield bytes(collected)


def _write(file: BinaryIO, batch: bytes, hash_more: Callable[[bytes], None]) -> None:
    hash_more(batch)
    rest = memoryview(batch)
    while rest:
        rest = rest[file.write(rest) :]

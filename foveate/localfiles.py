"""Files on the user's own disk: what they may replace, how they arrive, whole or not at all, and what the disk says."""

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

from foveate.errors import ImageMissing, OptionInvalid, OutputExists, ServiceUnreachable, Unexpected, disk_errors

_CHUNK = 1 << 20

__all__ = [
    "Part",
    "arriving",
    "check_image",
    "check_new",
    "check_unasked",
    "inside",
    "local_errors",
    "reading_errors",
]


@dataclass
class Part:
    """What has arrived of one file at `target`; grows, and begins anew where the service begins anew."""

    target: Path
    tag: str = ""
    """The ETag of the bytes that it is a part of."""
    size: int = 0
    """Bytes that have arrived."""
    digest: Any = field(default_factory=hashlib.sha256)

    @classmethod
    def found(cls, target: Path, tag: str) -> "Part":
        """What an earlier try left there of the bytes called `tag`."""
        part = cls(target, tag)
        with local_errors(target), suppress(FileNotFoundError), target.open("rb") as file:
            while chunk := file.read(_CHUNK):
                part._count(chunk)
        return part

    def restart(self) -> None:
        with local_errors(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.target.write_bytes(b"")
        self.size, self.digest = 0, hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        with local_errors(self.target), self.target.open("ab") as file:
            file.write(chunk)
        self._count(chunk)

    def _count(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.size += len(chunk)


@contextmanager
def local_errors(path: Path, choice: str = "--out") -> Iterator[None]:
    """What the user's disk refuses becomes DiskFull, or OptionInvalid where there is something to mend or to choose.

    `choice` is what chooses another place than `path`.
    """
    try:
        with disk_errors(path, f"free some space there, or choose another place with {choice}"):
            yield
    except OSError as error:
        reason = error.strerror or str(error)
        hint = f"choose another place with {choice}, or mend what is in the way"
        raise OptionInvalid(f"{path} cannot be written: {reason}", hint=hint) from error


@contextmanager
def reading_errors(image: Path) -> Iterator[None]:
    """An image that cannot be read becomes ImageMissing."""
    try:
        yield
    except OSError as error:
        hint = "check the path, and whether you may read it"
        raise ImageMissing(f"{image} cannot be read: {error.strerror or error}", hint=hint) from error


def check_image(image: Path) -> None:
    """ImageMissing unless it is a file."""
    with reading_errors(image):
        if not image.is_file():
            hint = "a slide of several files goes as one .zip" if image.exists() else "check the path"
            raise ImageMissing(f"{image} is not a file", hint=hint)


def check_new(out: Path, hint: str = "choose another place, or remove what is there") -> None:
    """OutputExists if there is anything at `out`."""
    if os.path.lexists(out):
        raise OutputExists(f"{out} exists already", hint=hint)


def check_unasked(out: Path, *, overwrite: bool) -> None:
    """OutputExists if there is anything at `out`, unless --overwrite was said; OptionInvalid if it is not UTF-8."""
    try:
        str(out.absolute()).encode()
    except UnicodeEncodeError as error:
        hint = "choose another --out, or work in another directory"
        raise OptionInvalid(f"the path {str(out.absolute())!a} is not UTF-8", hint=hint) from error
    if not overwrite:
        check_new(out, "choose another --out, or say --overwrite")


@contextmanager
def arriving(out: Path, what: str) -> Iterator[Path]:
    """A directory that becomes the new directory `out` when the block has ended.

    OutputExists if `out` is there already, or another process is making the same. The directory is called after `what`,
    and stays where Ctrl-C, a kill or a silent service end the block: the next try finds what has arrived. Whatever else
    ends it removes it.
    """
    check_new(out)
    with local_errors(out):
        scratch = out.parent / f".{out.name}-{what}.partial"
        scratch.mkdir(parents=True, exist_ok=True)
    with _alone(scratch, out):
        try:
            yield scratch
            with local_errors(out):
                scratch.rename(out)
        except (KeyboardInterrupt, ServiceUnreachable):
            with suppress(OSError):  # it goes if nothing has arrived
                scratch.rmdir()
            raise
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


@contextmanager
def _alone(scratch: Path, out: Path) -> Iterator[None]:
    """`scratch` for us alone: two that add to one file would mix their bytes, and each would find its own digest right.

    Whatever ends us frees it. On Windows, and where a file system knows no locks, nobody is kept out.
    """
    if sys.platform == "win32":
        yield
        return
    with local_errors(out):
        handle = os.open(scratch, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "wait for it, or choose another place with --out"
            raise OutputExists(f"another process is fetching {out}", hint=hint) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
        check_new(out)  # the other may have ended just now
        yield
    finally:
        os.close(handle)


def inside(directory: Path, name: str) -> Path:
    """`directory / name`, unless the name would leave it: a service is not trusted with our file system."""
    target = directory / name
    if ".." in target.parts or not target.is_relative_to(directory) or target == directory:
        raise Unexpected(
            f"the service names a result {name!r}", hint="this service is broken or hostile: do not use it"
        )
    return target

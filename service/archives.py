"""A .zip as one slide of several files: unpacked under limits, into names of our own choosing."""

import errno
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from foveate.errors import UploadInvalid, disk_errors
from service.uploads import Limits

MAX_MEMBERS = 10_000
MAX_RATIO = 100
"""Unpacked bytes per byte of the archive."""
_DIRECTORY_LIMIT = 8 << 20
"""Bytes of the list of members, which is read whole before a member can be counted."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_PART = re.compile(r"[\w .()+,=@&'~\[\]-]+")
_HINT = "zip the files of one slide and nothing else, with plain names and without links"

__all__ = ["MAX_MEMBERS", "MAX_RATIO", "is_zip", "plain_name", "unpack_slide"]


_LONGEST = 255
"""Bytes of a file's name, on every file system in use."""
_LONGEST_PATH, _DEEPEST = 1024, 32
"""Characters and folders of a member's path."""


@dataclass(frozen=True)
class _Member:
    info: zipfile.ZipInfo
    path: PurePosixPath
    """Below the folder that all members share."""


def is_zip(path: Path) -> bool:
    """By content: whether the file begins like a zip archive, an empty one included."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def unpack_slide(archive: Path, content: Path, limits: Limits) -> str:
    """Unpacks the slide in `archive` into the empty directory `content` and returns what to open there.

    MIRAX (one .mrxs and its folder), Hamamatsu VMS and VMU, a DICOM series ("." is returned), or one file of any
    kind. Raises UploadInvalid, UploadTooLarge or DiskFull; the caller then removes `content`.
    """
    try:
        with archive.open("rb") as file:
            _check_directory(file)
        with zipfile.ZipFile(archive) as opened:
            members = _checked_members(opened, archive.stat().st_size)
            total = sum(member.info.file_size for member in members)
            limits.check_size(total)
            limits.check_space(content, total)
            with disk_errors(content):
                _extract(opened, members, content)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, struct.error, ValueError) as error:
        raise _damaged(error) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # what zipfile meets where an offset points before the file
            raise
        raise _damaged(error) from error
    return _entry(content, [member.path for member in members])


def _damaged(error: Exception) -> UploadInvalid:
    return UploadInvalid(f"the zip archive is damaged: {error}", hint="make the archive again and send it")


def _check_directory(file: BinaryIO) -> None:
    """Bounds the list of members by the archive's own end record, before zipfile reads that list into memory."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 65557))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise zipfile.BadZipFile("it has no end record")
    count, length = struct.unpack_from("<HI", tail, at + 10)
    if tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):  # a zip64 archive has a second, larger record
        place = struct.unpack_from("<Q", tail, at - 12)[0]
        if place != size - len(tail) + at - 20 - 56:  # zipfile takes what lies there for it, wherever this one points
            raise zipfile.BadZipFile("its second end record is out of place")
        file.seek(place)
        count, length = struct.unpack_from("<32xQQ", file.read(56))
    if count > MAX_MEMBERS or length > _DIRECTORY_LIMIT:
        raise UploadInvalid(f"the zip archive has {count} members, and {MAX_MEMBERS} are allowed", hint=_HINT)


def _checked_members(opened: zipfile.ZipFile, packed: int) -> list[_Member]:
    files = [info for info in opened.infolist() if not info.is_dir() and not _is_clutter(info.filename)]
    if not files:
        raise UploadInvalid("the zip archive holds no file", hint=_HINT)
    if len(files) > MAX_MEMBERS:
        raise UploadInvalid(f"the zip archive has {len(files)} members, and {MAX_MEMBERS} are allowed", hint=_HINT)
    paths = [_checked_path(info) for info in files]
    if len({str(path).casefold() for path in paths}) != len(paths):
        raise UploadInvalid("two members of the zip archive have one name", hint=_HINT)
    if {parent for path in paths for parent in path.parents}.intersection(paths):
        raise UploadInvalid("a member of the zip archive is a file and a folder", hint=_HINT)
    total = sum(info.file_size for info in files)
    if total > MAX_RATIO * max(packed, 1):
        message = f"the zip archive would unpack from {packed} to {total} bytes, more than {MAX_RATIO}:1"
        raise UploadInvalid(
            message, hint="images hardly compress: send the slide's own files, zipped without compression"
        )
    shared = _shared_folder(paths)
    return [_Member(info, path.relative_to(shared)) for info, path in zip(files, paths, strict=True)]


def _is_clutter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1:] in ((".DS_Store",), ("Thumbs.db",))


def _checked_path(info: zipfile.ZipInfo) -> PurePosixPath:
    """The member's path; UploadInvalid unless it is a plain file that stays below where it is unpacked."""
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise UploadInvalid("the zip archive holds a link or a special file", hint=_HINT)
    if info.flag_bits & 1 or info.compress_type not in _METHODS:
        raise UploadInvalid("the zip archive is encrypted, or compressed in an unusual way", hint=_HINT)
    if len(info.filename) > _LONGEST_PATH:
        raise UploadInvalid("a member of the zip archive has a path that is too long", hint=_HINT)
    path = PurePosixPath(info.filename)
    plain = all(
        _PART.fullmatch(part) and not part.startswith(".") and len(part.encode()) <= _LONGEST for part in path.parts
    )
    plain = plain and 1 <= len(path.parts) <= _DEEPEST
    if path.is_absolute() or "\\" in info.orig_filename or not plain:
        raise UploadInvalid("a member of the zip archive has an absolute, hidden, upward, odd or long path", hint=_HINT)
    return path


def _shared_folder(paths: Sequence[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds all of `paths`."""
    shared = paths[0].parent
    while not all(path.is_relative_to(shared) for path in paths):
        shared = shared.parent
    return shared


def _extract(opened: zipfile.ZipFile, members: Sequence[_Member], content: Path) -> None:
    for member in members:
        target = content / member.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(member.info) as packed, target.open("xb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)


def _entry(content: Path, paths: Sequence[PurePosixPath]) -> str:
    """Gives the files our names where their own are not referred to by others, and says which one to open."""
    if len(paths) == 1:
        (content / paths[0]).rename(content / plain_name(paths[0].name))
        return plain_name(paths[0].name)
    top = [path for path in paths if len(path.parts) == 1]
    mirax = [path for path in top if path.suffix.lower() == ".mrxs"]
    if len(mirax) == 1 and (content / mirax[0].stem).is_dir():
        if mirax[0].stem != "slide" and (content / "slide").exists():
            raise UploadInvalid("the zip archive holds another folder beside the slide's, called slide", hint=_HINT)
        (content / mirax[0]).rename(content / "slide.mrxs")
        (content / mirax[0].stem).rename(content / "slide")
        return "slide.mrxs"
    hamamatsu = [path for path in top if path.suffix.lower() in (".vms", ".vmu")]
    if len(hamamatsu) == 1:
        return str(hamamatsu[0])  # it names its neighbours, so all of them keep their names
    if all(_is_dicom(content / path) for path in paths):
        numbered = [(path, f"instance-{number:05}.dcm") for number, path in enumerate(sorted(paths))]
        for path, name in numbered:  # first to names that no member can have, for one may have another's
            (content / path).rename(content / f".{name}")
        for _, name in numbered:
            (content / f".{name}").rename(content / name)
        return "."
    raise UploadInvalid(
        f"the {len(paths)} files of the zip archive are no slide that is known here",
        hint="a zip holds one MIRAX slide (.mrxs and its folder), one VMS or VMU slide, one DICOM series, or one file",
    )


def plain_name(name: str) -> str:
    """ "image" with the suffix of `name`, if that is a usual one: readers may look at it, and nothing else stays."""
    suffix = PurePosixPath(name).suffix.lower()
    return f"image{suffix}" if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else "image"


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"

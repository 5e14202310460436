"""Bundles as files: taken out of a directory or a zip archive, and packed into one."""

import errno
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from foveate.card import CARD_FILE, README_FILE, TRAINING_FILE, WEIGHTS_FILE, bundle_file, read_card
from foveate.errors import BundleInvalid, BundleUnknown, OutputExists, disk_errors
from foveate.localfiles import check_new, local_errors

FILES = (CARD_FILE, WEIGHTS_FILE, README_FILE, TRAINING_FILE)
"""All that a bundle may consist of; nothing else is copied, packed or unpacked."""
MAX_BYTES = 4 << 30
MAX_ENTRIES = 1000
MAX_RATIO = 100
"""Packed bytes grow at most this much; weights hardly shrink at all, zeros about a thousandfold."""
_SMALL_BYTES = 1 << 20
SMP_CONFIG = "config.json"
_CARD_SUFFIXES = (".json", ".yaml", ".yml")
RUN_BUNDLE = "bundle"
"""Where a finished training run keeps its bundle."""
_LOSSES = "losses.csv"
_RUN_FILES = ("recipe.yaml", "checkpoint.pt", _LOSSES)
_STEP = re.compile(r"\d+")

__all__ = [
    "FILES",
    "MAX_BYTES",
    "SMP_CONFIG",
    "bundle_of",
    "copy_bundle",
    "holds_smp",
    "named_bundle",
    "pack_bundle",
    "unpacked",
]


def holds_smp(directory: Path) -> bool:
    """Whether segmentation_models_pytorch's `save_pretrained` wrote the directory, rather than we."""
    return (directory / SMP_CONFIG).is_file() and not (directory / CARD_FILE).exists()


def bundle_of(directory: Path) -> Path:
    """`directory`, or the bundle inside it where it is a finished run of `foveate train`.

    Raises BundleUnknown for a run that has not finished, saying how far it is, and for a directory of several runs.
    """
    inside = directory / RUN_BUNDLE
    if (directory / CARD_FILE).exists() or not directory.is_dir():
        return directory
    if (inside / CARD_FILE).exists():
        return inside
    if any((directory / name).exists() for name in _RUN_FILES):
        raise BundleUnknown(
            f"{directory} is a training run that has not finished ({_progress(directory)})",
            hint="give `foveate train` the same recipe again, it goes on from the last checkpoint",
        )
    if runs := sorted(str(path.parent.parent) for path in directory.glob(f"**/{RUN_BUNDLE}/{CARD_FILE}")):
        raise BundleUnknown(f"{directory} holds {len(runs)} finished runs", hint=f"name one: {', '.join(runs[:8])}")
    return directory


def named_bundle(model: str, directory_of: Callable[[str], Path]) -> Path:
    """The directory of the bundle that `model` names: by a path, a finished run's among them, or by its own name.

    `directory_of` finds names, and raises BundleUnknown. What looks like a path is one, and nothing else is where there
    is a bundle of that name: so no directory that happens to be here takes a model's place.
    """
    if "/" in model or model.startswith("."):
        return bundle_of(Path(model))
    try:
        return directory_of(model)
    except BundleUnknown:
        if Path(model).is_dir():
            return bundle_of(Path(model))
        raise


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """`source` itself if it is a directory; else, for as long as the block lasts, what the zip archive holds.

    Raises BundleUnknown or BundleInvalid. Only the files of a bundle are taken out of the archive, whatever else is in
    it, and they are written under names of ours: no path in it is ever followed.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise BundleUnknown(f"{source} is neither a directory nor a file", hint="name a bundle's directory or its .zip")
    if source.suffix in _CARD_SUFFIXES:
        hint = f"name the folder that save_pretrained wrote: foveate models add FOLDER --card {source}"
        raise BundleInvalid(f"{source} is a card or a recipe, not a bundle", hint=hint)
    with tempfile.TemporaryDirectory(prefix="foveate-bundle-") as scratch:
        try:
            with disk_errors(Path(scratch), "set TMPDIR to a larger disk"), zipfile.ZipFile(source) as archive:
                _extract(archive, Path(scratch), source)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            hint = "export the bundle again: `foveate models export NAME`"
            raise BundleInvalid(f"{source} is no sound zip archive: {error}", hint=hint) from error
        except OSError as error:
            if error.errno != errno.EINVAL:  # what zipfile meets where an offset points before the file
                raise
            raise BundleInvalid(f"{source} is no sound zip archive: {error}", hint="export the bundle again") from error
        yield Path(scratch)


def copy_bundle(source: Path, models: Path, *, replace: bool) -> Path:
    """The bundle in `source` as `models`/NAME, which appears whole or not at all; OutputExists unless `replace`.

    A bundle that is replaced stays until this one is there. DiskFull or OptionInvalid where it cannot be written.
    """
    name = read_card(source).name
    target = models / name
    if target.exists() and not replace:
        raise OutputExists(f"there is a model {name!r} in {models} already", hint="say --replace to put this one there")
    with local_errors(models, "FOVEATE_DATA"):
        models.mkdir(parents=True, exist_ok=True)
        # Hidden: the catalogue passes over names that begin with a dot.
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=models) as scratch:
            fresh, replaced = Path(scratch) / "fresh", Path(scratch) / "replaced"
            fresh.mkdir()
            for file in _present_files(source):
                with _opened(source, file) as given, (fresh / file).open("xb") as copy:
                    shutil.copyfileobj(given, copy, 1 << 20)
                    copy.flush()
                    os.fsync(copy.fileno())  # before the rename that makes it visible
            if target.exists():
                target.rename(replaced)
            try:
                fresh.rename(target)
            except BaseException:
                if replaced.exists():
                    replaced.rename(target)
                raise
    return target


def pack_bundle(source: Path, archive: Path) -> None:
    """The bundle in `source` as the new zip file `archive`, which appears whole or not at all. Raises OutputExists.

    The same bundle gives the same bytes.
    """
    name = read_card(source).name
    check_new(archive)
    with (
        local_errors(archive),
        tempfile.TemporaryDirectory(prefix=f".{archive.name}-", dir=archive.parent) as scratch,
    ):
        whole = Path(scratch) / "whole"
        with zipfile.ZipFile(whole, "x") as packed:
            for file in _present_files(source):
                entry = zipfile.ZipInfo(f"{name}/{file}")  # a fixed date, so that packing twice gives the same bytes
                entry.external_attr = 0o644 << 16
                with _opened(source, file) as plain, packed.open(entry, "w", force_zip64=True) as out:
                    shutil.copyfileobj(plain, out, 1 << 20)
        whole.rename(archive)


def _progress(run: Path) -> str:
    """How far the losses of a run reach, in words."""
    try:
        text = (run / _LOSSES).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    # A killed process may leave half a line.
    whole = text[: text.rfind("\n") + 1].splitlines()
    step = whole[-1].partition(",")[0] if whole else ""
    return f"{_LOSSES} ends at step {step}" if _STEP.fullmatch(step) else "no step is done yet"


def _present_files(directory: Path) -> list[str]:
    return [name for name in FILES if (directory / name).is_file()]


def _opened(source: Path, name: str) -> BinaryIO:
    """A file of the bundle in `source`, for reading; BundleInvalid where that cannot be."""
    path = bundle_file(source, name)
    try:
        return path.open("rb")
    except OSError as error:
        raise BundleInvalid(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error


def _extract(archive: zipfile.ZipFile, target: Path, source: Path) -> None:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise BundleInvalid(f"{source} holds {len(entries)} entries", hint=f"a bundle has {len(FILES)} files")
    members = {}
    for info in entries:
        _check_entry(info, source)
        path = PurePosixPath(info.filename)
        if path.name in FILES and len(path.parts) <= 2:
            if path.name in members:
                hint = "export one bundle a file"
                raise BundleInvalid(f"{source} holds {path.name} twice: is it two bundles?", hint=hint)
            members[path.name] = info
    if CARD_FILE not in members:
        raise BundleUnknown(f"{source} holds no {CARD_FILE}", hint="name the .zip that `foveate models export` wrote")
    if sum(info.file_size for info in members.values()) > MAX_BYTES:
        raise BundleInvalid(f"{source} unpacks to more than {MAX_BYTES} bytes", hint="bundles are a few MB each")
    for name, info in members.items():
        with archive.open(info) as packed, (target / name).open("xb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)


def _check_entry(info: zipfile.ZipInfo, source: Path) -> None:
    """Nothing outside the archive is ever written; an entry that asks for it still says that the archive means harm."""
    # The name as stored: `filename` is cut at a NUL, and on Windows its backslashes are turned.
    name = info.orig_filename
    parts = name.replace("\\", "/").split("/")
    reason = None
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name:
        reason = "leads out of the archive"
    elif stat.S_ISLNK(info.external_attr >> 16):
        reason = "is a link"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = "is packed by an unusual method"
    elif info.file_size > _SMALL_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        reason = f"unpacks from {info.compress_size} to {info.file_size} bytes"
    if reason is not None:
        raise BundleInvalid(f"{source}: the entry {name!r} {reason}", hint="get the bundle anew from whom you trust")

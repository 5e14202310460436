"""What lies where on disk. Everything becomes visible by one rename, after its bytes are durable.

DATA/
├── images/ID/      image.json and content/: an uploaded image, never changed
├── incoming/ID/    an upload that is not an image yet, or something on its way out
├── canvas/DIGEST/  committed blocks of one configuration, shared by all attempts at it
├── jobs/ID/attempt-N/  scratch of one attempt; out/ becomes the result, preview.tif can be read until then
├── results/ID/     published results of a job
└── models/NAME/    bundles that the user added
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from foveate.errors import NO_ROOM, ImageUnknown, OptionInvalid, ResultGone, ResultUnknown, disk_errors
from jobs.records import ImageRecord, new_id

__all__ = ["PREVIEW", "RESERVE_BYTES", "FileStore", "make_directory", "sync_tree"]

RESERVE_BYTES = 256 * 1024 * 1024
"""What an upload must leave free, so that running jobs and Valkey's log can still write."""

PREVIEW = "preview.tif"
"""What a job shows before it has a result, beside `out`; it appears whole."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_RESULT_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_IMAGE_CARD = "image.json"
_CONTENT = "content"


class FileStore:
    """The data directory. Ids that could leave it are unknown ids; methods may be called from any thread."""

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()
        self.images = self.data / "images"
        self.incoming = self.data / "incoming"
        self.canvases = self.data / "canvas"
        self.jobs = self.data / "jobs"
        self.results = self.data / "results"
        self.models = self.data / "models"
        for directory in (self.images, self.incoming, self.canvases, self.jobs, self.results, self.models):
            make_directory(directory)

    # --- images ---------------------------------------------------------------------------------------------------

    def new_upload(self) -> Path:
        """A new directory in incoming/ with an empty content/ inside; write the bytes there under names of our own."""
        staging = self.incoming / new_id()
        with disk_errors(staging):
            (staging / _CONTENT).mkdir(parents=True)
        return staging

    def drop_upload(self, staging: Path) -> None:
        """Forget an upload that will not become an image, even if a thread is just about to make it one."""
        self._discard(staging)

    def commit_image(self, staging: Path, image: ImageRecord) -> None:
        """Make the upload in `staging` the image `image.id`, durably and at once."""
        with disk_errors(staging):
            (staging / _IMAGE_CARD).write_text(image.model_dump_json(indent=2))
            sync_tree(staging)
            staging.rename(self.images / _safe(image.id))
            _sync(self.images)

    def image(self, image_id: str) -> ImageRecord:
        """The record of an image; ImageUnknown."""
        try:
            return ImageRecord.model_validate_json((self.images / _safe(image_id) / _IMAGE_CARD).read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise ImageUnknown(
                f"no image {image_id!r}", hint="upload it with POST /images; `foveate images list` shows what is here"
            ) from error

    def image_path(self, image: ImageRecord) -> Path:
        """What to open."""
        return self.images / _safe(image.id) / _CONTENT / image.entry

    def list_images(self) -> list[ImageRecord]:
        """All images, newest first."""
        found = []
        for directory in self.images.iterdir():
            try:
                found.append(self.image(directory.name))
            except ImageUnknown:
                continue  # deleted meanwhile, or nothing of ours
        return sorted(found, key=lambda image: (image.created, image.id), reverse=True)

    def delete_image(self, image_id: str) -> None:
        """Remove an image; ImageUnknown. Ask `JobStore.retire_image` first."""
        self.image(image_id)
        self._discard(self.images / image_id)

    # --- attempts, canvases and results -------------------------------------------------------------------------------

    @contextmanager
    def attempt(self, job_id: str, attempt: int) -> Iterator[Path]:
        """An empty scratch directory for the attempt; gone at the end, as are those of the attempts before it."""
        scratch = self._attempt(job_id, attempt)
        with disk_errors(scratch):
            for earlier in range(1, attempt + 1):
                shutil.rmtree(self._attempt(job_id, earlier), ignore_errors=True)
            scratch.mkdir(parents=True)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            with suppress(OSError):  # a later attempt lives there
                scratch.parent.rmdir()

    def preview(self, job_id: str, attempt: int) -> Path | None:
        """The preview that an attempt shows by now; None: none yet, or none any more."""
        path = self._attempt(job_id, attempt) / PREVIEW
        return path if path.is_file() else None

    def drop_attempts(self, job_id: str) -> None:
        """Remove what killed workers left of a job that has ended."""
        shutil.rmtree(self.jobs / _safe(job_id), ignore_errors=True)

    def settle(self, out: Path) -> None:
        """Force what lies in `out` to the disk, before the last look at the token: it may take longer than a lease."""
        with disk_errors(out):
            sync_tree(out)

    def publish(self, job_id: str, out: Path) -> None:
        """Make the directory `out` the result of the job. The caller settled it, and just checked the fencing token.

        A result that is already there stays: the same configuration gives the same bytes.
        """
        target = self.results / _safe(job_id)
        with disk_errors(out):
            sync_tree(out)
            try:
                out.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            _sync(self.results)

    def published(self, job_id: str) -> bool:
        return (self.results / _safe(job_id)).is_dir()

    def result_names(self, job_id: str) -> list[str]:
        """Names of the files of a published result, sorted; ResultGone."""
        try:
            return sorted(path.name for path in (self.results / _safe(job_id)).iterdir() if path.is_file())
        except FileNotFoundError as error:
            raise ResultGone(
                f"the results of job {job_id!r} were removed", hint="submit the job again; see FOVEATE_KEEP_DAYS"
            ) from error

    def result(self, job_id: str, name: str) -> Path:
        """The path of one file of a published result; ResultGone, or ResultUnknown naming those that exist."""
        names = self.result_names(job_id)
        if not _RESULT_NAME.fullmatch(name) or name not in names:
            raise ResultUnknown(f"job {job_id!r} has no file {name!r}", hint=f"its files: {', '.join(names)}")
        return self.results / job_id / name

    def delete_results(self, job_id: str) -> None:
        """Remove a published result, if there is one."""
        if self.published(job_id):
            self._discard(self.results / job_id)

    @contextmanager
    def held_canvas(self, digest: str) -> Iterator[Path]:
        """The canvas's directory, made if need be; nobody removes it while it is held."""
        directory = self.canvases / _safe(digest)
        with _locked(_lock_file(directory), fcntl.LOCK_SH):
            with disk_errors(directory):
                directory.mkdir(exist_ok=True)
            _lock_file(directory).touch()  # for a worker that is killed touches it no more
            try:
                yield directory
            finally:
                _lock_file(directory).touch()

    def idle_canvases(self, before: datetime) -> list[str]:
        """Digests of the canvases that nobody took, let go of or wrote to since `before`; one may be held now."""
        idle = []
        for lock in self.canvases.glob("*.lock"):
            with suppress(FileNotFoundError):  # another sweeper was faster
                if _last_used(lock) < before.timestamp():
                    idle.append(lock.stem)
        return idle

    def drop_canvas(self, digest: str) -> bool:
        """Remove a canvas; False if a worker holds it."""
        directory = self.canvases / _safe(digest)
        try:
            with _locked(_lock_file(directory), fcntl.LOCK_EX | fcntl.LOCK_NB):
                if directory.exists():
                    self._discard(directory)
                _lock_file(directory).unlink()
        except BlockingIOError:
            return False
        return True

    def _attempt(self, job_id: str, attempt: int) -> Path:
        return self.jobs / _safe(job_id) / f"attempt-{attempt}"

    def _discard(self, directory: Path) -> None:
        """Out of sight at once by a rename, then out of existence."""
        trash = self.incoming / f"trash-{new_id()}"
        try:
            directory.rename(trash)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            trash = directory  # a full disk may have no room for another name
        shutil.rmtree(trash, ignore_errors=True)


def make_directory(directory: Path) -> None:
    """Make `directory` and its parents; OptionInvalid where that cannot be done."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionInvalid(
            f"the directory {directory} cannot be made: {error.strerror}",
            hint="choose another with --data or FOVEATE_DATA, or mend its permissions",
        ) from error


def sync_tree(directory: Path) -> None:
    """Force every file and directory below `directory`, itself included, to disk."""
    for path in directory.rglob("*"):
        _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _safe(name: str) -> str:
    """`name` if it can be nothing but one component of a path; such that no id can point elsewhere."""
    return name if _NAME.fullmatch(name) else "-"


def _lock_file(directory: Path) -> Path:
    return directory.with_name(directory.name + ".lock")


def _last_used(lock: Path) -> float:
    """When a canvas was last taken or let go of, or a file appeared in it; seconds since the epoch."""
    directory = lock.with_suffix("")
    parts = [directory, *directory.iterdir()] if directory.is_dir() else []
    return max(path.stat().st_mtime for path in (lock, *parts))


@contextmanager
def _locked(path: Path, mode: int) -> Iterator[None]:
    """Hold an flock on `path`, which whoever removes the canvas unlinks: so look whether it is still the same file."""
    while True:
        with disk_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, mode)
            if _is(path, handle):
                yield
                return
        finally:
            os.close(handle)


def _is(path: Path, handle: int) -> bool:
    """Whether `path` is still the file that is open as `handle`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False

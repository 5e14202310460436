"""Removes what nobody needs any more: always what lies about unfinished, by choice what is old."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foveate.errors import ImageInUse, ImageUnknown, JobUnknown
from foveate.schema import JobState
from jobs.files import FileStore
from jobs.store import JobStore

__all__ = ["ABANDONED", "Retention"]

ABANDONED = timedelta(days=1)
"""Uploads, canvases and scratch that nobody has touched for so long are nobody's."""

_SWEEP_SECONDS = 600.0
_ENDED = tuple(state for state in JobState if state.terminal)
_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Retention:
    """`keep_days`: age in days at which results and images go; None: never.

    A job's record outlives its results by as long again, so that a late reader learns that they are gone.
    """

    def __init__(
        self, store: JobStore, files: FileStore, keep_days: float | None, *, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._store = store
        self._files = files
        self._keep = None if keep_days is None else timedelta(days=keep_days)
        self._now = now
        self._due = 0.0

    def sweep_when_due(self) -> None:
        """`sweep`, unless the last one was a short while ago."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _SWEEP_SECONDS
            self.sweep()

    def sweep(self) -> None:
        """Remove all that is due."""
        self._drop_abandoned(self._now() - ABANDONED)
        self._finish_deletions()
        if self._keep is not None:
            self._drop_results(self._now() - self._keep)
            self._drop_images(self._now() - self._keep)
            self._drop_records(self._now() - 2 * self._keep)

    def _drop_abandoned(self, before: datetime) -> None:
        for upload in self._files.incoming.iterdir():
            if _touched(upload) < before:
                _log.info("event=drop-upload upload=%s", upload.name)
                shutil.rmtree(upload, ignore_errors=True)
        for scratch in self._files.jobs.iterdir():
            if _touched(scratch) < before and self._ended(scratch.name):
                self._files.drop_attempts(scratch.name)
        for digest in self._files.idle_canvases(before):
            if self._files.drop_canvas(digest):
                _log.info("event=drop-canvas canvas=%s", digest)

    def _finish_deletions(self) -> None:
        """Of images that whoever deleted them died over: no job may use them, and yet they are shown."""
        for image_id in self._store.retired([image.id for image in self._files.list_images()]):
            _log.info("event=finish-deletion image=%s", image_id)
            with suppress(ImageUnknown):
                self._files.delete_image(image_id)

    def _drop_results(self, before: datetime) -> None:
        for results in self._files.results.iterdir():
            if _modified(results) < before and self._ended(results.name):
                _log.info("event=drop-results job=%s", results.name)
                self._files.delete_results(results.name)

    def _drop_images(self, before: datetime) -> None:
        for image in self._files.list_images():
            if image.created >= before:
                continue
            try:
                self._store.retire_image(image.id)
            except ImageInUse:
                continue
            _log.info("event=drop-image image=%s", image.id)
            with suppress(ImageUnknown):
                self._files.delete_image(image.id)

    def _drop_records(self, before: datetime) -> None:
        # All at once: removing while paging would skip some.
        for job in self._store.find(states=_ENDED, before=before, limit=sys.maxsize):
            if job.finished is not None and job.finished < before and not self._files.published(job.id):
                self._store.remove(job.id)

    def _ended(self, job_id: str) -> bool:
        try:
            return self._store.get(job_id).state.terminal
        except JobUnknown:
            return True  # Valkey was lost, or the record removed


def _touched(directory: Path) -> datetime:
    """When something in `directory` was last written."""
    # `os.walk` passes over what vanishes under its hands, as finished uploads do; `rglob` raises.
    below = (Path(at, name) for at, folders, files in os.walk(directory) for name in (*folders, *files))
    return max(map(_modified, (directory, *below)))


def _modified(path: Path) -> datetime:
    """The time of `path`'s last change; now, if it has just vanished."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return utc_now()

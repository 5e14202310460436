"""Removes what nobody needs any more: always what lies about unfinished, by choice what is old."""

import logging

from jobs.files import FileStore
from jobs.store import JobStore

__all__ = ["Retention"]

ABANDONED_SECONDS = 24 * 3600
"""Uploads, canvases and scratch that nobody has touched for so long are nobody's."""

_log = logging.getLogger(__name__)


class Retention:
    """`keep_days`: age at which results and images go; None: never. Sweeps at most once in `every_seconds`."""

    def __init__(
        self, store: JobStore, files: FileStore, keep_days: float | None, *, every_seconds: float = 600.0
    ) -> None:
        self._store = store
        self._files = files
        self._keep_days = keep_days
        self._every = every_seconds
        self._swept = -every_seconds

    def sweep(self) -> None:
        """Remove what is due, unless the last sweep was a short while ago."""
        raise NotImplementedError

"""Brings records, queue and results together again after something died; safe to run in several processes at once."""

import logging
import threading
from datetime import UTC, datetime, timedelta

from foveate.errors import ServiceUnreachable
from foveate.schema import JobState
from jobs.files import FileStore
from jobs.queue import Delivery, JobQueue
from jobs.records import JobRecord
from jobs.retention import Retention
from jobs.store import JobStore

__all__ = ["Reaper"]

_log = logging.getLogger(__name__)


class Reaper:
    """One pass is `sweep`; `run` repeats it until told to stop. The API process runs it.

    A waiting job that has had no message for `undelivered_seconds` was never delivered, or its message died with the
    worker that had just taken it; it is delivered again.
    """

    def __init__(
        self,
        store: JobStore,
        queue: JobQueue,
        files: FileStore,
        retention: Retention,
        *,
        undelivered_seconds: float = 5.0,
    ) -> None:
        self._store = store
        self._queue = queue
        self._files = files
        self._retention = retention
        self._undelivered_after = timedelta(seconds=undelivered_seconds)

    def sweep(self) -> None:
        """Adopt published results, requeue jobs whose lease has expired, deliver what waits undelivered."""
        waiting = self._queue.waiting()
        for job in self._store.live():
            if self._files.published(job.id):
                _log.info("event=adopt job=%s", job.id)
                self._store.succeed(job.id)
            elif job.state is JobState.RUNNING and self._store.reap(job.id, job.attempt):
                _log.warning("event=lease-expired job=%s attempt=%d", job.id, job.attempt)
                self._queue.put(Delivery(job.id, job.attempt + 1))
            elif self._undelivered(job, waiting):
                _log.warning("event=deliver-again job=%s attempt=%d", job.id, job.attempt)
                self._queue.put(Delivery(job.id, job.attempt))

    def run(self, stop: threading.Event, every_seconds: float = 5.0) -> None:
        """Sweep until `stop` is set; an outage of Valkey only delays it."""
        while not stop.wait(every_seconds):
            try:
                self.sweep()
                self._retention.sweep_when_due()
            except ServiceUnreachable as error:
                _log.warning("event=reaper-waits reason=%r", error.message)
            except Exception:
                # The last safety net of every job must not end with one unforeseen error.
                _log.exception("event=reaper-failed")

    def _undelivered(self, job: JobRecord, waiting: set[Delivery]) -> bool:
        old = datetime.now(UTC) - job.updated > self._undelivered_after
        return job.state is JobState.ACCEPTED and old and Delivery(job.id, job.attempt) not in waiting

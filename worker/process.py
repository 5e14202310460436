"""The worker's torch-free parent: takes deliveries, claims jobs, drives the engine, and publishes what it made."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from foveate.card import bundle_digest
from foveate.errors import DeviceLost, DiskFull, FoveateError, ServiceUnreachable, Unexpected, WorkerLost, error_of
from foveate.signals import end_on_signals
from jobs.catalog import Catalog
from jobs.files import FileStore
from jobs.queue import Delivery, JobQueue
from jobs.records import ErrorTriple
from jobs.store import JobStore
from jobs.valkey import connect
from worker.engine import PIPELINE, Ended, Engine, Progress, Ready
from worker.settings import WorkerSettings
from worker.spec import JobSpec, canvas_digest

__all__ = ["Worker", "run_job", "run_worker"]

_TICK_SECONDS = 0.25
"""How often a running job's record is read, or written where there is progress."""
_TAKE_SECONDS = 1
_OUTAGE_SECONDS = 1.0

_log = logging.getLogger(__name__)
T = TypeVar("T")


class _SupersededError(Exception):
    """The job was dismissed, or its lease expired and another attempt has it."""


class _StoppingError(Exception):
    """The worker was told to end."""


@dataclass(frozen=True)
class Worker:
    """What one worker works with. `stopping` is set when it has been told to end."""

    settings: WorkerSettings
    store: JobStore
    queue: JobQueue
    files: FileStore
    catalog: Catalog
    engine: Engine
    name: str
    stopping: threading.Event = field(default_factory=threading.Event)


def run_worker(settings: WorkerSettings, pipeline: str = PIPELINE) -> None:
    """Work until SIGTERM, SIGINT or SIGHUP; a job in hand is then given back. Main thread only.

    Outlives outages of Valkey. Raises FoveateError if the engine cannot start, for then no job can be done.
    """
    connection = connect(settings.valkey_url)
    worker = Worker(
        settings=settings,
        store=JobStore(connection),
        queue=JobQueue(connection),
        files=FileStore(settings.data),
        catalog=Catalog(settings.bundle_dirs),
        engine=Engine(pipeline, settings.device),
        name=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
    )
    end_on_signals(worker.stopping)
    _log.info("event=worker-starts worker=%s", worker.name)
    try:
        while not worker.stopping.is_set():
            if worker.engine.running:
                _serve_one(worker)
            else:
                _start_engine(worker)
    finally:
        worker.engine.kill()
        connection.close()


def run_job(worker: Worker, job_id: str, attempt: int) -> None:
    """Do what a delivery asks for, if it is still to be done: duplicates and stale deliveries do nothing."""
    if worker.files.published(job_id):
        worker.store.succeed(job_id)
        return
    if not worker.store.claim(job_id, attempt, worker.name, worker.settings.lease_seconds):
        _log.info("event=stale-delivery job=%s attempt=%d", job_id, attempt)
        return
    _log.info("event=claimed job=%s attempt=%d", job_id, attempt)
    try:
        ended = _attempt(worker, job_id, attempt)
    except _SupersededError:
        _log.info("event=superseded job=%s attempt=%d", job_id, attempt)
        return
    except _StoppingError:
        _again(worker, job_id, attempt, lambda: worker.store.release(job_id, attempt, "its worker was stopped"))
        return
    except FoveateError as error:
        ended = Ended(ErrorTriple.of(error), error.retryable)
    except Exception as error:
        _log.exception("event=attempt-crashed job=%s attempt=%d", job_id, attempt)
        crash = Unexpected(f"{type(error).__name__}: {error}", hint="a defect of Foveate; see the worker's log")
        ended = Ended(ErrorTriple.of(crash))
    _settle(worker, job_id, attempt, ended)


# --- the engine -----------------------------------------------------------------------------------------


def _start_engine(worker: Worker) -> None:
    """Launch the engine and wait until it is ready; raises what keeps it from that."""
    worker.engine.launch()
    deadline = time.monotonic() + worker.settings.start_seconds
    while not worker.stopping.is_set():
        match worker.engine.poll(_TICK_SECONDS):
            case Ready():
                _log.info("event=engine-ready pid=%s", worker.engine.pid)
                return
            case Ended(error=ErrorTriple() as error):
                raise error_of(error.code, error.message, error.hint)
        if time.monotonic() > deadline:
            raise WorkerLost("the engine does not start", hint="see its log, or raise FOVEATE_START_SECONDS")


def _halt(engine: Engine, grace_seconds: float) -> None:
    """End the attempt in hand: by asking, and after the grace by a kill."""
    deadline = time.monotonic() + grace_seconds
    try:
        engine.ask_to_stop()
        while time.monotonic() < deadline:
            if isinstance(engine.poll(0.1), Ended):
                return
    except WorkerLost:
        return
    _log.warning("event=engine-killed pid=%s grace_s=%g", engine.pid, grace_seconds)
    engine.kill()


# --- one delivery ---------------------------------------------------------------------------------------


def _serve_one(worker: Worker) -> None:
    try:
        delivery = worker.queue.take(_TAKE_SECONDS)
        if delivery is not None:
            run_job(worker, delivery.job_id, delivery.attempt)
    except ServiceUnreachable as error:
        _log.warning("event=worker-waits reason=%r", error.message)
        worker.stopping.wait(_OUTAGE_SECONDS)


def _attempt(worker: Worker, job_id: str, attempt: int) -> Ended:
    """One attempt by its holder, up to the published result."""
    request = _insist(worker, lambda: worker.store.get(job_id)).request
    image = worker.files.image(request.image)
    bundle = worker.catalog.bundle(request.model)
    settings = worker.settings
    digest = canvas_digest(
        image_sha256=image.sha256,
        reader=image.info.reader,
        bundle_sha256=bundle_digest(bundle.directory),
        options=request.options,
        machine=(settings.device, settings.memory_gb, settings.block, settings.batch),
    )
    try:
        with worker.files.held_canvas(digest) as canvas, worker.files.attempt(job_id, attempt) as scratch:
            spec = JobSpec(
                job_id=job_id,
                image=worker.files.image_path(image),
                image_name=image.name,
                image_sha256=image.sha256,
                reader=image.info.reader,
                options=request.options,
                model=bundle.directory,
                out=scratch / "out",
                canvas=canvas,
                device=settings.device,
                memory_gb=settings.memory_gb,
                batch=settings.batch,
                block=settings.block,
                archive=True,
            )
            ended = _drive(worker, spec, attempt)
            if ended.error is not None and ended.error.code == DeviceLost.code:
                worker.engine.kill()  # another will find out whether the device works again
            if ended.error is None:
                _publish(worker, job_id, attempt, spec.out)
    except DiskFull as error:
        ended = Ended(ErrorTriple.of(error), error.retryable)
    if ended.error is None or ended.error.code == DiskFull.code:
        worker.files.drop_canvas(digest)  # on a full disk nobody could even record the failure
    return ended


def _drive(worker: Worker, spec: JobSpec, attempt: int) -> Ended:
    """Have the engine do `spec`, and watch both it and the record until one of them ends the attempt."""
    worker.engine.submit(spec)
    try:
        return _watch(worker, spec.job_id, attempt)
    except BaseException:
        # Whatever it was: an engine that worked on would take the next job after this one, and answer for this one.
        if worker.engine.running:
            _halt(worker.engine, worker.settings.grace_seconds)
        raise


def _watch(worker: Worker, job_id: str, attempt: int) -> Ended:
    news: Progress | None = None
    heard = time.monotonic()
    tick = 0.0
    while not worker.stopping.is_set():
        message = worker.engine.poll(_TICK_SECONDS)
        now = time.monotonic()
        if isinstance(message, Ended):
            return message
        if isinstance(message, Progress):
            news, heard = message, now
        if now - heard > worker.settings.lease_seconds:
            worker.engine.kill()
            raise WorkerLost(
                f"the engine reported no progress for {now - heard:.0f} s",
                hint="a damaged or slow disk may be the cause; else raise FOVEATE_LEASE_SECONDS",
            )
        if now >= tick:
            if not _ours(worker, job_id, attempt, news):
                raise _SupersededError
            news, tick = None, now + _TICK_SECONDS
    raise _StoppingError


def _ours(worker: Worker, job_id: str, attempt: int, news: Progress | None) -> bool:
    """Whether the attempt still holds the job; progress renews the lease on the way."""
    try:
        if news is None:
            return worker.store.holds(job_id, attempt)
        percent = int(100 * news.fraction)
        return worker.store.renew(job_id, attempt, worker.settings.lease_seconds, percent, news.stage)
    except ServiceUnreachable:
        return True  # an outage need not stop the work: the token is checked again before publishing


# --- its end --------------------------------------------------------------------------------------------


def _publish(worker: Worker, job_id: str, attempt: int, out: Path) -> None:
    """Check the fencing token, then rename: from then on the result stands, whatever becomes of this process."""
    with ThreadPoolExecutor(1, "settle") as beside:
        settling = beside.submit(worker.files.settle, out)
        # A slow disk may take longer for gigabytes than a lease lasts.
        while not wait([settling], _TICK_SECONDS).done:
            if not _ours(worker, job_id, attempt, Progress("publishing", 0.99)):
                raise _SupersededError
        settling.result()
    lease = worker.settings.lease_seconds
    if not _insist(worker, lambda: worker.store.renew(job_id, attempt, lease, 99, "publishing")):
        raise _SupersededError
    worker.files.publish(job_id, out)
    if not _insist(worker, lambda: worker.store.succeed(job_id)):
        worker.files.delete_results(job_id)  # dismissed between the check and the rename
        raise _SupersededError
    _log.info("event=published job=%s attempt=%d", job_id, attempt)


def _settle(worker: Worker, job_id: str, attempt: int, ended: Ended) -> None:
    """Record how an attempt ended that published nothing."""
    error = ended.error
    if error is None:
        return
    _log.warning("event=attempt-failed job=%s attempt=%d code=%s reason=%r", job_id, attempt, error.code, error.message)
    if ended.retryable:
        _again(worker, job_id, attempt, lambda: worker.store.requeue(job_id, attempt, error))
    else:
        _insist(worker, lambda: worker.store.fail(job_id, attempt, error))


def _again(worker: Worker, job_id: str, attempt: int, requeue: Callable[[], bool]) -> None:
    if _insist(worker, requeue):
        _insist(worker, lambda: worker.queue.put(Delivery(job_id, attempt + 1)))


def _insist(worker: Worker, change: Callable[[], T]) -> T:
    """`change()`, repeated through outages of Valkey: changes made twice are made once."""
    while True:
        try:
            return change()
        except ServiceUnreachable:
            if worker.stopping.wait(_OUTAGE_SECONDS):
                raise

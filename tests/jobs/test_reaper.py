"""After a crash: records, queue and results agree again."""

import threading
import time
from pathlib import Path

import pytest

from foveate.schema import JobState
from jobs.files import FileStore
from jobs.queue import Delivery, JobQueue
from jobs.reaper import Reaper
from jobs.retention import Retention
from jobs.store import JobStore
from jobs.valkey import EmbeddedValkey, connect
from tests.jobs.state import request_for


@pytest.fixture
def reaper(store: JobStore, queue: JobQueue, files: FileStore) -> Reaper:
    return Reaper(store, queue, files, Retention(store, files, None), undelivered_seconds=0.05)


def test_an_expired_lease_is_delivered_to_another_worker(reaper: Reaper, store: JobStore, queue: JobQueue) -> None:
    expired, _ = store.create(request_for("image"))
    held, _ = store.create(request_for("image"))
    assert store.claim(expired.id, 1, "dead", 0.001) and store.claim(held.id, 1, "alive", 60)
    time.sleep(0.01)
    reaper.sweep()
    reaper.sweep()
    assert queue.waiting() == {Delivery(expired.id, 2)}
    assert store.get(held.id).state is JobState.RUNNING


def test_a_worker_that_always_dies_is_given_three_jobs_attempts(
    reaper: Reaper, store: JobStore, queue: JobQueue
) -> None:
    job, _ = store.create(request_for("image"))
    for attempt in (1, 2, 3):
        assert store.claim(job.id, attempt, "dead", 0.001)
        time.sleep(0.01)
        reaper.sweep()
    job = store.get(job.id)
    assert job.state is JobState.FAILED
    assert job.error is not None and (job.error.code, "lease" in job.error.message) == ("worker-lost", True)
    assert Delivery(job.id, 4) not in queue.waiting()


def test_a_job_whose_message_was_lost_is_delivered_once(reaper: Reaper, store: JobStore, queue: JobQueue) -> None:
    job, _ = store.create(request_for("image"))
    time.sleep(0.1)
    reaper.sweep()
    reaper.sweep()
    assert queue.take(1) == Delivery(job.id, 1)
    assert queue.take(1) is None


def test_a_published_result_beats_the_record(reaper: Reaper, store: JobStore, files: FileStore) -> None:
    jobs = [store.create(request_for("image"))[0] for _ in range(3)]
    store.claim(jobs[1].id, 1, "dead", 0.001)
    store.dismiss(jobs[2].id)
    for job in jobs:
        (files.results / job.id).mkdir()
    reaper.sweep()
    states = [store.get(job.id).state for job in jobs]
    assert states == [JobState.SUCCESSFUL, JobState.SUCCESSFUL, JobState.DISMISSED]


def test_the_reaper_outlives_an_outage(tmp_path: Path, files: FileStore) -> None:
    valkey = EmbeddedValkey(tmp_path / "data", run_dir=tmp_path)
    valkey.start()
    client = connect(valkey.url)
    store, queue = JobStore(client), JobQueue(client)
    job, _ = store.create(request_for("image"))
    reaper = Reaper(store, queue, files, Retention(store, files, None), undelivered_seconds=0)
    stop = threading.Event()
    thread = threading.Thread(target=reaper.run, args=(stop, 0.05))
    valkey.stop()
    thread.start()
    time.sleep(0.2)
    valkey.start()
    deadline = time.monotonic() + 30
    while Delivery(job.id, 1) not in queue.waiting() and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    thread.join()
    assert Delivery(job.id, 1) in queue.waiting()
    client.close()
    valkey.stop()

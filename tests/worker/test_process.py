"""Whole workers around a fake pipeline: killed, frozen, cut off from Valkey, told to stop. The job still ends, once."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from foveate.schema import JobState
from jobs.files import FileStore
from jobs.queue import Delivery, JobQueue
from jobs.reaper import Reaper
from jobs.records import JobRecord
from jobs.retention import Retention
from jobs.store import JobStore
from jobs.valkey import EmbeddedValkey, connect
from tests.jobs.state import add_image, request_for, write_bundle
from tests.jobs.test_valkey import gone

PATIENCE = 60.0
"""Seconds after which a test that waits has failed; none comes near it."""


@dataclass
class Site:
    """A data directory, a Valkey of its own, a running reaper, and the workers that a test starts."""

    root: Path
    valkey: EmbeddedValkey
    files: FileStore
    store: JobStore
    queue: JobQueue
    lease: float = 3.0
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker whose engine is ready."""
        settings = {
            "DATA": self.files.data,
            "VALKEY_URL": self.valkey.url,
            "BUNDLES": self.root / "bundles",
            "LEASE_SECONDS": self.lease,
            "GRACE_SECONDS": 1,
            "DEVICE": "cpu",
        }
        environment = os.environ | {f"FOVEATE_{name}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "tests.worker.fake_worker"]
        worker = subprocess.Popen(command, env=environment)
        self.workers.append(worker)
        self.wait(lambda: engine_of(worker) is not None)
        return worker

    def submit(self, **script: Any) -> JobRecord:
        script = {"blocks": 30, "seconds": 0.05, "log": str(self.root / "log")} | script
        job, _ = self.store.create(request_for(add_image(self.files, json.dumps(script))))
        self.queue.put(Delivery(job.id, job.attempt))
        return job

    def wait(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, self.store.find()
            time.sleep(0.02)

    def ended(self, job: JobRecord) -> JobRecord:
        self.wait(lambda: self.store.get(job.id).state.terminal)
        return self.store.get(job.id)

    def passed_on(self, job: JobRecord, attempt: int) -> None:
        """Wait until the job has gone beyond `attempt`."""
        self.wait(lambda: self.files.published(job.id) or self.store.get(job.id).attempt > attempt)

    def computed(self) -> list[int]:
        """The blocks in the order of their computation; a block that was begun twice stands twice."""
        log = self.root / "log"
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def assert_done(self, job: JobRecord, *, blocks: int = 30, interruptions: int = 0) -> None:
        done = self.ended(job)
        assert (done.state, done.progress, done.error) == (JobState.SUCCESSFUL, 100, None)
        assert self.files.result(job.id, "mask.tif").read_text() == "".join(f"{k}," for k in range(blocks))
        assert set(self.computed()) == set(range(blocks))
        assert len(self.computed()) <= blocks + interruptions
        self.wait(lambda: not any(self.files.jobs.iterdir()) and not any(self.files.canvases.iterdir()))


def engine_of(worker: subprocess.Popen[bytes]) -> int | None:
    """The process id of a worker's only child."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return int(children[0]) if children else None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    valkey = EmbeddedValkey(tmp_path / "state")
    valkey.start()
    client = connect(valkey.url)
    files, store, queue = FileStore(tmp_path / "data"), JobStore(client), JobQueue(client)
    write_bundle(tmp_path / "bundles")
    site = Site(tmp_path, valkey, files, store, queue)
    stop = threading.Event()
    reaper = Reaper(store, queue, files, Retention(store, files, None), undelivered_seconds=1)
    thread = threading.Thread(target=reaper.run, args=(stop, 0.2))
    thread.start()
    yield site
    stop.set()
    thread.join()
    for worker in site.workers:
        worker.kill()
        worker.wait()
    client.close()
    valkey.stop()


def test_jobs_run_on_one_warm_engine(site: Site) -> None:
    worker = site.start_worker()
    engine = engine_of(worker)
    first, second = site.submit(), site.submit()
    seen: list[int] = []
    while not site.store.get(first.id).state.terminal:
        seen.append(site.store.get(first.id).progress)
        time.sleep(0.05)
    assert seen == sorted(seen) and len(set(seen)) > 2
    site.assert_done(first, interruptions=30)
    site.assert_done(second, interruptions=30)
    assert engine_of(worker) == engine
    assert Counter(site.computed()) == dict.fromkeys(range(30), 2)


def test_a_delivery_that_comes_often_is_done_once(site: Site) -> None:
    job = site.submit()
    for attempt in (1, 1, 2, 7):
        site.queue.put(Delivery(job.id, attempt))
    site.queue.put(Delivery("nobody", 1))
    for _ in range(2):
        site.start_worker()
    site.wait(lambda: site.queue.waiting() == set() and site.store.get(job.id).state.terminal)
    site.assert_done(job)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_a_killed_engine_costs_at_most_the_block_in_hand(site: Site, seed: int) -> None:
    """Two kills a job at random moments, ten in all; the third would be the last attempt's."""
    moment = random.Random(seed)
    worker = site.start_worker()
    job = site.submit()
    kills = 0
    while kills < 2 and not site.store.get(job.id).state.terminal:
        time.sleep(moment.uniform(0.05, 0.9))
        engine = engine_of(worker)
        if engine is not None and site.store.get(job.id).state is JobState.RUNNING:
            os.kill(engine, signal.SIGKILL)
            kills += 1
            site.passed_on(job, kills)
    site.assert_done(job, interruptions=kills)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 3))])
def test_a_killed_worker_takes_its_engine_along_and_another_goes_on(site: Site, seed: int) -> None:
    worker = site.start_worker()
    engine = engine_of(worker)
    assert engine is not None
    job = site.submit()
    site.wait(lambda: len(site.computed()) > 2)
    time.sleep(random.Random(seed).uniform(0, 1))
    worker.kill()
    assert gone(engine, 3)
    site.start_worker()
    site.assert_done(job, interruptions=1)
    assert site.store.get(job.id).losses <= 1


def test_three_lost_attempts_fail_the_job_with_the_reason(site: Site) -> None:
    site.start_worker()
    deadly = site.submit(die_at=4)
    innocent = site.submit()
    failed = site.ended(deadly)
    assert (failed.state, failed.losses, failed.attempt) == (JobState.FAILED, 3, 3)
    assert failed.error is not None and failed.error.code == "worker-lost"
    assert "signal 9" in failed.error.message and "memory" in failed.error.hint
    assert site.ended(innocent).state is JobState.SUCCESSFUL
    computed = Counter(site.computed())
    assert (computed[3], computed[4], computed[5]) == (2, 4, 1)


@pytest.mark.parametrize("error", ["SpacingMismatch", "DiskFull", "Crash"])
def test_an_error_that_no_attempt_mends_fails_at_once(site: Site, error: str) -> None:
    site.start_worker()
    failed = site.ended(site.submit(error=error))
    assert (failed.state, failed.attempt) == (JobState.FAILED, 1)
    assert failed.error is not None and failed.error.hint
    assert "the fake" in failed.error.message
    # Committed blocks stay for the next job, but not where they fill the disk.
    site.wait(lambda: any(site.files.canvases.iterdir()) is not (error == "DiskFull"))


def test_an_engine_whose_device_failed_is_replaced(site: Site) -> None:
    worker = site.start_worker()
    engine = engine_of(worker)
    failed, innocent = site.submit(error="DeviceLost"), site.submit(log=str(site.root / "other"))
    assert site.ended(innocent).state is JobState.SUCCESSFUL
    ended = site.ended(failed)
    assert (ended.state, ended.attempt) == (JobState.FAILED, 3)
    assert ended.error is not None and ended.error.code == "device-lost"
    assert engine_of(worker) not in (engine, None)


def test_a_job_whose_image_or_bundle_is_gone_fails_with_the_reason(site: Site) -> None:
    orphan, _ = site.store.create(request_for("no-such-image"))
    site.queue.put(Delivery(orphan.id, 1))
    site.start_worker()
    failed = site.ended(orphan)
    assert failed.error is not None
    assert (failed.error.code, "no-such-image" in failed.error.message) == ("no-such-image", True)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_dismissal_stops_the_engine_within_seconds(site: Site, deaf: bool) -> None:
    worker = site.start_worker()
    job = site.submit(blocks=100_000, deaf=deaf)
    site.wait(lambda: len(site.computed()) > 2)
    engine = engine_of(worker)
    site.store.dismiss(job.id)
    dismissed = time.monotonic()
    site.wait(lambda: not any(site.files.jobs.iterdir()))
    assert time.monotonic() - dismissed < 5
    count = len(site.computed())
    assert (engine_of(worker) == engine) is not deaf
    following = site.submit(log=str(site.root / "other"))
    assert site.ended(following).state is JobState.SUCCESSFUL
    assert site.store.get(job.id).state is JobState.DISMISSED
    assert len(site.computed()) == count
    assert not site.files.published(job.id)


def test_a_silent_engine_is_replaced(site: Site) -> None:
    worker = site.start_worker()
    engine = engine_of(worker)
    job = site.submit(hang_at=5)
    done = site.ended(job)
    assert (done.state, done.losses) == (JobState.SUCCESSFUL, 1)
    assert engine_of(worker) != engine
    assert Counter(site.computed()) == dict.fromkeys(range(30), 1) | {5: 2}


@pytest.mark.slow
def test_a_disk_that_is_slower_than_a_lease_costs_no_attempt(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLE_SECONDS", str(2 * site.lease))
    site.start_worker()
    job = site.submit(blocks=3)
    site.assert_done(job, blocks=3)
    assert site.store.get(job.id).losses == 0


@pytest.mark.slow
def test_a_frozen_worker_wakes_up_without_a_say(site: Site) -> None:
    frozen = site.start_worker()
    engine = engine_of(frozen)
    assert engine is not None
    job = site.submit(blocks=100, seconds=0.03)
    site.wait(lambda: len(site.computed()) > 2)
    for pid in (frozen.pid, engine):
        os.kill(pid, signal.SIGSTOP)
    site.start_worker()
    site.passed_on(job, 1)
    for pid in (engine, frozen.pid):
        os.kill(pid, signal.SIGCONT)
    assert site.ended(job).state is JobState.SUCCESSFUL
    assert site.files.result(job.id, "mask.tif").read_text().count(",") == 100
    assert site.store.get(job.id).losses == 1
    follow = site.submit(log=str(site.root / "other"))
    assert site.ended(follow).state is JobState.SUCCESSFUL


def test_a_stopped_worker_gives_its_job_back(site: Site) -> None:
    site.lease = 600.0  # nobody waits for it
    worker = site.start_worker()
    job = site.submit(blocks=60)
    site.wait(lambda: len(site.computed()) > 2)
    worker.terminate()
    assert worker.wait(10) == 0
    given_back = site.store.get(job.id)
    assert (given_back.state, given_back.attempt, given_back.losses) == (JobState.ACCEPTED, 2, 0)
    site.start_worker()
    site.assert_done(job, blocks=60)


@pytest.mark.parametrize("outage", [1.0, pytest.param(8.0, marks=pytest.mark.slow)])
def test_an_outage_of_valkey_costs_no_work(site: Site, outage: float) -> None:
    """Shorter and longer than redis-py's own retries, and longer than the job and its lease."""
    worker = site.start_worker()
    job = site.submit(blocks=40)
    site.wait(lambda: len(site.computed()) > 2)
    assert site.valkey.pid is not None
    os.kill(site.valkey.pid, signal.SIGKILL)
    time.sleep(outage)
    site.valkey.start()
    site.assert_done(job, blocks=40, interruptions=1)
    assert worker.poll() is None
    again = site.submit(log=str(site.root / "other"))
    assert site.ended(again).state is JobState.SUCCESSFUL


def test_a_worker_without_an_engine_says_so_and_ends(site: Site) -> None:
    code = (
        "from pathlib import Path; import sys; from worker.process import run_worker\n"
        "from worker.settings import WorkerSettings\n"
        "run_worker(WorkerSettings(data=Path(sys.argv[1]), valkey_url=sys.argv[2]), 'no_such_engine:run')"
    )
    command = [sys.executable, "-c", code, str(site.files.data), site.valkey.url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ended.returncode == 1
    assert "EngineMissing" in ended.stderr and "no_such_engine" in ended.stderr

"""Jobs' records in a real Valkey: one winner, no way out of a terminal state, nothing done twice."""

import threading
import time
from collections.abc import Callable

import pytest
from redis import Redis

from foveate.errors import IdempotencyConflict, ImageInUse, ImageUnknown, JobUnknown
from foveate.schema import JobState, SegmentOptions
from jobs.records import MAX_LOSSES, ErrorTriple, JobRecord, JobRequest
from jobs.store import JobStore
from tests.jobs.state import request_for

LOST = ErrorTriple("worker-lost", "the engine was killed by signal 9", "more memory")
FULL = ErrorTriple("disk-full", "no space", "free some")


def running(store: JobStore, *, lease: float = 60) -> JobRecord:
    job, _ = store.create(request_for("image"))
    assert store.claim(job.id, 1, "worker-a", lease)
    return store.get(job.id)


def test_a_job_passes_through_its_states(store: JobStore) -> None:
    options = SegmentOptions(model="tiny", overlap=0.5, roi=(1, 2, 3, 4), bands=[3, 2, 1])
    job, new = store.create(JobRequest("image", "tiny", options))
    assert new
    assert (job.state, job.attempt, job.progress, job.started) == (JobState.ACCEPTED, 1, 0, None)
    assert job.request.options == options
    assert store.claim(job.id, 1, "worker-a", 60)
    assert store.renew(job.id, 1, 60, 37, "segmenting")
    job = store.get(job.id)
    assert (job.state, job.progress, job.message, job.worker) == (JobState.RUNNING, 37, "segmenting", "worker-a")
    assert job.started is not None and job.lease_until is not None
    assert 50 < (job.lease_until - job.updated).total_seconds() < 70
    assert store.succeed(job.id)
    job = store.get(job.id)
    assert (job.state, job.progress, job.error, job.lease_until) == (JobState.SUCCESSFUL, 100, None, None)
    assert job.started is not None and job.finished is not None and job.created <= job.started <= job.finished


def test_one_of_many_claims_wins(store: JobStore) -> None:
    job, _ = store.create(request_for("image"))
    barrier = threading.Barrier(16)
    won: list[str] = []

    def claim(name: str) -> None:
        barrier.wait()
        if store.claim(job.id, 1, name, 60):
            won.append(name)

    threads = [threading.Thread(target=claim, args=(f"worker-{k}",)) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.get(job.id).worker]


def test_every_change_may_be_sent_twice(store: JobStore) -> None:
    job, _ = store.create(request_for("image"))
    assert store.claim(job.id, 1, "worker-a", 60) and store.claim(job.id, 1, "worker-a", 60)
    assert store.requeue(job.id, 1, LOST) and store.requeue(job.id, 1, LOST)
    assert (store.get(job.id).attempt, store.get(job.id).losses) == (2, 1)
    assert store.claim(job.id, 2, "worker-a", 60)
    assert store.fail(job.id, 2, FULL) and store.fail(job.id, 2, FULL)
    assert store.remove(job.id) and store.remove(job.id)


def test_progress_never_falls_nor_reaches_the_end_early(store: JobStore) -> None:
    job = running(store)
    seen = []
    for percent in (10, 40, 20, 100, 120):
        store.renew(job.id, 1, 60, percent, "segmenting")
        seen.append(store.get(job.id).progress)
    assert seen == [10, 40, 40, 99, 99]


def test_an_old_attempt_can_do_nothing(store: JobStore) -> None:
    job = running(store)
    assert store.requeue(job.id, 1, LOST)
    assert store.claim(job.id, 2, "worker-b", 60)
    before = store.get(job.id)
    assert not store.claim(job.id, 1, "worker-a", 60)
    assert not store.renew(job.id, 1, 60, 50, "segmenting")
    assert not store.holds(job.id, 1)
    assert not store.fail(job.id, 1, FULL)
    assert not store.release(job.id, 1, "stopped")
    assert store.get(job.id) == before


@pytest.mark.parametrize(
    "end",
    [
        lambda store, job_id: store.succeed(job_id),
        lambda store, job_id: store.fail(job_id, 1, FULL),
        lambda store, job_id: store.dismiss(job_id),
    ],
)
def test_a_terminal_state_is_never_left(store: JobStore, end: Callable[[JobStore, str], object]) -> None:
    job = running(store, lease=0.001)
    end(store, job.id)
    ended = store.get(job.id)
    assert ended.state.terminal
    store.claim(job.id, 1, "worker-a", 60)
    store.claim(job.id, 2, "worker-b", 60)
    store.renew(job.id, 1, 60, 50, "segmenting")
    store.succeed(job.id)
    store.fail(job.id, 1, LOST)
    store.requeue(job.id, 1, LOST)
    store.reap(job.id, 1)
    store.release(job.id, 1, "stopped")
    store.dismiss(job.id)
    assert store.get(job.id) == ended
    assert store.live() == []


def test_only_an_expired_lease_is_reaped(store: JobStore) -> None:
    job = running(store, lease=60)
    assert not store.reap(job.id, 1)
    assert store.renew(job.id, 1, 0.001, 50, "segmenting")
    time.sleep(0.01)
    assert store.reap(job.id, 1)
    job = store.get(job.id)
    assert (job.state, job.attempt, job.losses, job.progress) == (JobState.ACCEPTED, 2, 1, 50)


def test_the_third_loss_fails_the_job_with_its_reason(store: JobStore) -> None:
    job, _ = store.create(request_for("image"))
    for attempt in range(1, MAX_LOSSES + 1):
        assert store.claim(job.id, attempt, "worker-a", 60)
        assert store.requeue(job.id, attempt, LOST) == (attempt < MAX_LOSSES)
    job = store.get(job.id)
    assert (job.state, job.error) == (JobState.FAILED, LOST)


def test_giving_a_job_back_is_no_loss(store: JobStore) -> None:
    job, _ = store.create(request_for("image"))
    for attempt in range(1, 10):
        assert store.claim(job.id, attempt, "worker-a", 60)
        assert store.release(job.id, attempt, "its worker was stopped")
    assert store.get(job.id).losses == 0


def test_an_idempotency_key_returns_the_first_job(store: JobStore) -> None:
    first, _ = store.create(request_for("image"), "key")
    again, new = store.create(request_for("image"), "key")
    assert (again.id, new) == (first.id, False)
    other, new = store.create(request_for("image"), "another key")
    assert new and other.id != first.id
    with pytest.raises(IdempotencyConflict, match="key"):
        store.create(request_for("other image"), "key")
    store.dismiss(first.id)
    assert store.create(request_for("image"), "key")[0].state is JobState.DISMISSED
    store.remove(first.id)
    assert store.create(request_for("image"), "key")[1]


def test_an_image_in_use_is_not_retired(store: JobStore) -> None:
    job = running(store)
    with pytest.raises(ImageInUse, match=job.id):
        store.retire_image("image")
    store.dismiss(job.id)
    store.retire_image("image")
    with pytest.raises(ImageUnknown, match="image"):
        store.create(request_for("image"))


def test_jobs_are_found_newest_first_and_by_filter(store: JobStore) -> None:
    jobs = [store.create(request_for(f"image-{k % 2}"))[0] for k in range(230)]
    newest = [job.id for job in reversed(jobs)]
    for job in jobs[:3]:
        store.dismiss(job.id)
    assert [job.id for job in store.find(limit=1000)] == newest
    assert [job.id for job in store.find(offset=95, limit=10)] == newest[95:105]
    assert [job.id for job in store.find(states=[JobState.DISMISSED])] == newest[-3:]
    middle = jobs[100].created
    assert [job.id for job in store.find(after=middle, limit=1000)] == newest[:130]
    assert [job.id for job in store.find(before=middle, limit=1000)] == newest[129:]
    assert len(store.live()) == 227


@pytest.mark.parametrize("at_once", [False, True])
def test_no_job_is_found_twice_or_skipped_where_others_come_and_go(
    store: JobStore, connection: Redis, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    newest = [store.create(request_for("image"))[0].id for _ in range(350)][::-1]
    if at_once:  # as far as Valkey's clock can tell
        connection.zadd("foveate:jobs", dict.fromkeys(newest, 1.0))
        newest.sort(reverse=True)
    read = store._read

    def meanwhile(ids: list[str]) -> list[JobRecord | None]:
        found = read(ids)
        store.create(request_for("image"))
        if not at_once:
            connection.zrem("foveate:jobs", ids[0])
        return found

    monkeypatch.setattr(store, "_read", meanwhile)
    monkeypatch.setattr(store, "get", lambda job_id: read([job_id])[0])
    assert [job.id for job in store.find(limit=1000)] == newest


def test_an_unknown_job_is_an_error_and_no_new_record(store: JobStore, connection: Redis) -> None:
    with pytest.raises(JobUnknown, match="nobody"):
        store.get("nobody")
    with pytest.raises(JobUnknown):
        store.dismiss("nobody")
    assert not store.claim("nobody", 1, "worker-a", 60)
    assert not store.renew("nobody", 1, 60, 1, "segmenting")
    assert not store.succeed("nobody")
    assert not store.fail("nobody", 1, FULL)
    assert not store.requeue("nobody", 1, LOST)
    assert connection.keys("foveate:*") == []


def test_a_record_of_another_version_hides_no_other(store: JobStore, connection: Redis) -> None:
    foreign, sound = store.create(request_for("image"))[0], store.create(request_for("image"))[0]
    connection.hset(f"foveate:job:{foreign.id}", "options", '{"an option that is no more": 1}')
    assert [job.id for job in store.find()] == [job.id for job in store.live()] == [sound.id]
    with pytest.raises(JobUnknown, match=foreign.id):
        store.get(foreign.id)


def test_a_server_that_forgets_its_scripts_at_every_turn_is_given_them_with_the_command(
    connection: Redis, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, where it starts again between being told a script and running it."""
    load = connection.script_load

    def forgetful(text: str) -> str:
        sha = load(text)
        connection.script_flush()
        return str(sha)

    connection.script_flush()
    monkeypatch.setattr(connection, "script_load", forgetful)
    store.retire_image("image")
    with pytest.raises(ImageUnknown):
        store.create(request_for("image"))

"""What is abandoned or old goes; what is in use or young stays."""

import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import jobs.retention
from foveate.schema import JobState
from jobs.files import FileStore
from jobs.retention import ABANDONED, Retention
from jobs.store import JobStore
from tests.jobs.state import add_image, request_for

DAY = 24 * 3600


def later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def age(path: Path, seconds: float) -> None:
    for each in (path, *path.rglob("*")):
        os.utime(each, times=(time.time() - seconds,) * 2)


def test_abandoned_work_goes_and_the_rest_stays(store: JobStore, files: FileStore) -> None:
    live, _ = store.create(request_for("image"))
    old, slow = files.new_upload(), files.new_upload()
    for directory in (old, slow, files.jobs / live.id, files.jobs / "unknown"):
        directory.mkdir(exist_ok=True)
        age(directory, ABANDONED.total_seconds() + 60)
    (slow / "content" / "image.tif").write_bytes(b"still arriving")
    long_ago = ABANDONED.total_seconds() + 60
    for digest in ("idle", "fresh", "held", "killed"):
        with files.held_canvas(digest) as canvas:
            (canvas / "blocks").mkdir()
        if digest != "fresh":
            age(files.canvases / f"{digest}.lock", long_ago)
            age(files.canvases / digest, long_ago)
    (files.canvases / "killed" / "blocks" / "0-0.labels.zip").touch()  # a worker that never let go
    with files.held_canvas("held"):
        age(files.canvases / "held.lock", long_ago)
        Retention(store, files, None).sweep()
        assert sorted(path.stem for path in files.canvases.glob("*.lock")) == ["fresh", "held", "killed"]
    assert list(files.incoming.iterdir()) == [slow]
    assert [path.name for path in files.jobs.iterdir()] == [live.id]


def test_old_results_and_images_go_only_by_choice(store: JobStore, files: FileStore) -> None:
    used, _ = add_image(files), add_image(files)
    done, _ = store.create(request_for(used))
    waiting, _ = store.create(request_for(used))
    (files.results / done.id).mkdir()
    (files.results / "of-a-lost-record").mkdir()
    store.succeed(done.id)
    for path in files.results.iterdir():
        age(path, 8 * DAY)
    Retention(store, files, None, now=lambda: later(8)).sweep()
    assert len(list(files.results.iterdir())) == 2 and len(files.list_images()) == 2
    Retention(store, files, 7, now=lambda: later(0)).sweep()
    assert list(files.results.iterdir()) == []
    assert len(files.list_images()) == 2
    Retention(store, files, 7, now=lambda: later(8)).sweep()
    assert [image.id for image in files.list_images()] == [used.id]
    assert store.get(done.id).state is JobState.SUCCESSFUL
    Retention(store, files, 7, now=lambda: later(15)).sweep()
    assert [job.id for job in store.find()] == [waiting.id]


def test_an_upload_that_is_finished_under_the_sweep_does_not_stop_it(
    store: JobStore, files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, abandoned = files.new_upload(), files.new_upload()
    age(abandoned, ABANDONED.total_seconds() + 60)
    modified = jobs.retention._modified

    def meanwhile(path: Path) -> datetime:
        if path == moved:
            shutil.rmtree(moved)
        return modified(path)

    monkeypatch.setattr(jobs.retention, "_modified", meanwhile)
    Retention(store, files, None).sweep()
    assert list(files.incoming.iterdir()) == []


def test_a_deletion_that_was_cut_off_is_finished(store: JobStore, files: FileStore) -> None:
    kept, cut_off = add_image(files), add_image(files)
    store.retire_image(cut_off.id)
    Retention(store, files, None).sweep()
    assert files.list_images() == [kept]


def test_a_sweep_is_not_repeated_at_once(store: JobStore, files: FileStore) -> None:
    retention = Retention(store, files, None)
    retention.sweep_when_due()
    abandoned = files.new_upload()
    age(abandoned, 2 * DAY)
    retention.sweep_when_due()
    assert abandoned.exists()
    retention.sweep()
    assert not abandoned.exists()

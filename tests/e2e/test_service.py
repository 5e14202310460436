"""A whole service: the results of `foveate segment`, misfits, dismissals and kills."""

import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from foveate.cli import run
from foveate.errors import FoveateError
from foveate.schema import JobState
from tests.worker.computed import write_image

FILES = ("mask.tif", "mask.tif.aux.xml", "foveation.tif", "overlay.png", "regions.geojson", "statistics.json")


def blobs(side: int) -> np.ndarray:
    coarse = np.random.default_rng(5).integers(0, 256, (side // 40 + 1, side // 40 + 1, 3), np.uint8)
    return np.kron(coarse, np.ones((40, 40, 1), np.uint8))[:side, :side]


def test_an_image_goes_in_and_the_files_of_foveate_segment_come_out(service, bundles, tmp_path, monkeypatch):
    client, _ = service
    image = write_image(tmp_path / "scene.tif", blobs(900), crs="EPSG:32633")
    percents = []
    job = client.submit(client.upload(image).id, overlap=0.5)
    done = client.wait(job.jobID, lambda status: percents.append(status.progress))
    assert done.status is JobState.SUCCESSFUL
    client.fetch(job.jobID, tmp_path / "fetched")
    monkeypatch.setenv("FOVEATE_BUNDLES", str(bundles))
    assert run(["segment", str(image), "--out", str(tmp_path / "local"), "--overlap", "0.5"]) == 0
    for name in FILES:
        assert (tmp_path / "fetched" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    manifests = [json.loads((tmp_path / place / "manifest.json").read_text()) for place in ("fetched", "local")]
    for manifest in manifests:
        for changing in ("seconds", "peak_memory_bytes"):
            del manifest[changing]
    assert manifests[0]["image"]["sha256"] == manifests[1]["image"]["sha256"]
    assert manifests[0]["counts"] == manifests[1]["counts"]
    assert manifests[0]["files"] == manifests[1]["files"]
    assert percents == sorted(percents)


def test_a_misfit_is_refused_when_it_is_submitted(service, tmp_path):
    client, _ = service
    grey = client.upload(write_image(tmp_path / "grey.tif", blobs(80)[..., 0]))
    with pytest.raises(FoveateError) as refusal:
        client.submit(grey.id)
    assert "`bands` 1,1,1" in refusal.value.hint
    job = client.submit(grey.id, bands=[1, 1, 1])
    assert client.wait(job.jobID).status is JobState.SUCCESSFUL


def engines(up: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(up).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "worker.engine" in process.cmdline():
                found.append(process)
    return found


def test_a_dismissed_job_ends_within_seconds_and_the_next_one_runs(service, tmp_path):
    client, _ = service
    stored = client.upload(write_image(tmp_path / "scene.tif", blobs(4000)))
    job = client.submit(stored.id)
    while client.job(job.jobID).progress in (None, 0):
        time.sleep(0.05)
    client.cancel(job.jobID)
    assert client.job(job.jobID).status is JobState.DISMISSED
    small = client.submit(stored.id, roi=[0, 0, 300, 300])
    assert client.wait(small.jobID).status is JobState.SUCCESSFUL
    assert client.job(job.jobID).status is JobState.DISMISSED


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_engine_costs_nothing_but_time(service, tmp_path):
    """kill -9 of five running jobs at random moments: every job ends with the same bytes, killed or not."""
    client, process = service
    stored = client.upload(write_image(tmp_path / "scene.tif", blobs(1800), crs="EPSG:32633"))

    def fetched(job: str) -> dict[str, bytes]:
        assert client.wait(job).status is JobState.SUCCESSFUL
        client.fetch(job, tmp_path / job)
        return {name: (tmp_path / job / name).read_bytes() for name in FILES}

    began = time.monotonic()
    wanted = fetched(client.submit(stored.id).jobID)
    undisturbed = time.monotonic() - began
    moments = random.Random(11)
    kills = 0
    for _ in range(40):
        if kills == 5:
            break
        job = client.submit(stored.id).jobID
        while client.job(job).status is JobState.ACCEPTED:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, undisturbed))
        landed = client.job(job).status is JobState.RUNNING
        for engine in engines(process.pid) if landed else []:
            os.kill(engine.pid, signal.SIGKILL)
        kills += landed
        assert fetched(job) == wanted
    assert kills == 5


def test_the_service_goes_on_after_images_that_are_none(service, tmp_path: Path):
    client, _ = service
    (tmp_path / "text.tif").write_text("not an image\n")
    with pytest.raises(FoveateError, match=r"text\.tif"):
        client.upload(tmp_path / "text.tif")
    client.ready()

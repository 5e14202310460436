"""Jobs over HTTP: watched, failed, dismissed, removed and listed."""

import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from foveate.client import Client
from foveate.errors import (
    BundleUnknown,
    ImageDamaged,
    ImageInUse,
    ImageUnknown,
    JobUnknown,
    ResultGone,
    ResultNotReady,
)
from foveate.schema import JobState, StatusInfo
from tests.service.processes import Service, upload_as


def wait_for(client: Client, job_id: str, state: JobState) -> StatusInfo:
    deadline = time.monotonic() + 60
    while (status := client.job(job_id)).status is not state:
        assert not status.status.terminal and time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def test_unknown_things_are_not_found(client: Client, slide_id: str) -> None:
    with pytest.raises(ImageUnknown):
        client.submit("0" * 20)
    with pytest.raises(BundleUnknown, match="nothing"):
        client.submit(slide_id, model="nothing")
    with pytest.raises(BundleUnknown):
        client.submit(slide_id, model="../glands")
    with pytest.raises(JobUnknown):
        client.job("0" * 20)
    with pytest.raises(JobUnknown):
        client.results("0" * 20)


def test_failed_job_answers_with_its_error(service: Service, client: Client) -> None:
    job = client.submit(upload_as(service, "damaged.svs"))
    with pytest.raises(ImageDamaged, match="3 of 9 tiles") as caught:
        client.wait(job.jobID, every=0.05)
    assert caught.value.hint == "export the slide again"
    status = client.job(job.jobID)
    assert (status.status, status.message) == (JobState.FAILED, "3 of 9 tiles cannot be decoded")
    assert status.links[-1].rel.endswith("/exceptions")


def test_running_job_is_dismissed_and_stops(service: Service, client: Client) -> None:
    image = upload_as(service, "slow.svs")
    job = client.submit(image).jobID
    wait_for(client, job, JobState.RUNNING)
    with pytest.raises(ResultNotReady, match="running"):
        client.results(job)
    with pytest.raises(ImageInUse):
        client.delete_image(image)
    assert client.cancel(job).status is JobState.DISMISSED
    with pytest.raises(ResultGone):
        client.results(job)
    # The worker is free again: within seconds it finishes another job.
    other = client.submit(upload_as(service, "quick.svs")).jobID
    assert client.wait(other, every=0.05).status is JobState.SUCCESSFUL
    client.delete_image(image)
    with pytest.raises(ImageUnknown):
        client.image(image)


def test_finished_job_is_removed_with_its_results(service: Service, client: Client, slide_id: str) -> None:
    job = client.wait(client.submit(slide_id).jobID, every=0.05).jobID
    assert (service.data / "results" / job).is_dir()
    assert client.cancel(job).status is JobState.DISMISSED
    assert not (service.data / "results" / job).exists()
    with pytest.raises(JobUnknown):
        client.job(job)


def test_list_is_filtered_and_paged(service: Service, client: Client, done: str) -> None:
    everything = [job.jobID for job in client.jobs()]
    assert done in everything

    def ids(**query: str | int) -> list[str]:
        return [job["jobID"] for job in httpx.get(f"{service.url}/jobs", params=query).json()["jobs"]]

    now = datetime.now(UTC)
    assert done in ids(status="successful,failed", limit=1000)
    assert done not in ids(status="failed", limit=1000)
    assert ids(processID="segment", type="process", limit=1000) == everything
    assert ids(processID="echo") == ids(type="wps") == []
    assert done in ids(datetime=f"../{now.isoformat()}", limit=1000)
    assert ids(datetime=f"{(now + timedelta(days=1)).isoformat()}/..") == []
    assert done in ids(minDuration=0, maxDuration=60, limit=1000)
    assert done not in ids(minDuration=1000, limit=1000)
    pages: list[str] = []
    page = httpx.get(f"{service.url}/jobs", params={"limit": 2, "status": "successful"}).json()
    while True:
        pages += [job["jobID"] for job in page["jobs"]]
        following = [link["href"] for link in page["links"] if link["rel"] == "next"]
        if not following:
            break
        assert len(page["jobs"]) == 2
        page = httpx.get(following[0]).json()
    assert pages == ids(status="successful", limit=1000)


@pytest.mark.parametrize("filters", [{}, {"minDuration": 0}])
def test_no_job_is_skipped_where_others_are_removed_between_pages(
    service: Service, client: Client, slide_id: str, filters: dict[str, int]
) -> None:
    made = [client.submit(slide_id).jobID for _ in range(5)]
    for job in made:
        client.wait(job, every=0.05)
    page = httpx.get(f"{service.url}/jobs", params={"limit": 2, **filters}).json()
    assert [job["jobID"] for job in page["jobs"]] == made[:2:-1]
    for job in made[3:]:  # even the last job of the page
        client.cancel(job)
    (following,) = [link["href"] for link in page["links"] if link["rel"] == "next"]
    assert [job["jobID"] for job in httpx.get(following).json()["jobs"]] == made[2:0:-1]


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=1e99_x",
        "cursor=nan_x",
        "status=done",
        "datetime=yesterday",
        "limit=0",
        "limit=10001",
        "colour=red",
    ],
)
def test_wrong_filter_is_refused(service: Service, query: str) -> None:
    response = httpx.get(f"{service.url}/jobs?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json()["detail"]

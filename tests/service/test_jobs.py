"""Jobs over HTTP: submitted, refused, watched, dismissed, listed, removed; and their results."""

import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

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
    ResultUnknown,
    SpacingMismatch,
)
from foveate.schema import JobState, StatusInfo
from tests.service.fake_pipeline import MASK
from tests.service.processes import SCENE, SLIDE, Service

EXECUTION = "/processes/segment/execution"


def upload_as(service: Service, name: str) -> str:
    """The id of the slide under a name that tells the fake pipeline what to do."""
    response = httpx.post(f"{service.url}/images", params={"name": name}, content=SLIDE.read_bytes(), timeout=60)
    return str(response.json()["id"])


def execute(service: Service, inputs: dict[str, Any], **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    return httpx.post(service.url + EXECUTION, json={"inputs": inputs, **more}, headers=headers)


def wait_for(client: Client, job_id: str, state: JobState) -> StatusInfo:
    deadline = time.monotonic() + 60
    while (status := client.job(job_id)).status is not state:
        assert not status.status.terminal and time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


@pytest.fixture(scope="session")
def done(service: Service, slide_id: str) -> str:
    """A successful job."""
    with service.client() as client:
        return client.wait(client.submit(slide_id, overlap=0.5).jobID, every=0.05).jobID


def test_execution_answers_as_the_standard_says(service: Service, slide_id: str) -> None:
    response = execute(service, {"image": slide_id}, headers={"Prefer": "respond-async, wait=30"})
    status = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"{service.url}/jobs/{status['jobID']}"
    assert response.headers["preference-applied"] == "respond-async"
    assert (status["processID"], status["type"], status["status"]) == ("segment", "process", "accepted")
    assert None not in status.values()
    assert datetime.fromisoformat(status["created"]).tzinfo == UTC
    assert status["links"][0]["href"] == response.headers["location"]


def test_prefer_for_a_synchronous_answer_is_tolerated(service: Service, slide_id: str) -> None:
    response = execute(service, {"image": slide_id}, headers={"Prefer": "respond-sync"})
    assert response.status_code == 201
    assert "preference-applied" not in response.headers


def test_image_as_link_and_outputs_by_name(service: Service, slide_id: str) -> None:
    outputs = {"mask": {"transmissionMode": "reference"}}
    for href in (f"{service.url}/images/{slide_id}", f"/images/{slide_id}"):
        assert execute(service, {"image": {"href": href}}, outputs=outputs, response="raw").status_code == 201


@pytest.mark.parametrize(
    ("inputs", "outputs", "made"),
    [
        ({}, ["mask", "probabilities"], ["probabilities"]),
        ({}, ["probabilities", "uncertainty"], ["uncertainty", "probabilities"]),
        ({"outputs": ["probabilities"]}, ["uncertainty"], ["probabilities", "uncertainty"]),
        ({"outputs": ["uncertainty"]}, ["mask"], ["uncertainty"]),
    ],
)
def test_outputs_that_are_named_are_made(
    service: Service, client: Client, slide_id: str, inputs: dict[str, Any], outputs: list[str], made: list[str]
) -> None:
    answer = execute(service, {"image": slide_id, **inputs}, outputs={name: {} for name in outputs})
    job = client.wait(answer.json()["jobID"], every=0.05).jobID
    options = httpx.get(f"{service.url}/jobs/{job}/results/statistics.json").json()["options"]
    assert options["outputs"] == made


@pytest.mark.parametrize(
    ("headers", "applied"),
    [
        ([("Prefer", "Respond-Async")], True),
        ([("Prefer", "wait=10"), ("Prefer", "handling=strict, respond-async; x=y")], True),
        ([("Prefer", "no-respond-async")], False),
    ],
)
def test_preferences_are_read_whatever_their_case(
    service: Service, slide_id: str, headers: list[tuple[str, str]], applied: bool
) -> None:
    answer = httpx.post(service.url + EXECUTION, json={"inputs": {"image": slide_id}}, headers=headers)
    assert answer.headers.get("preference-applied") == ("respond-async" if applied else None)


@pytest.mark.parametrize(
    ("inputs", "more", "words"),
    [
        ({"image": "ID", "colour": "red"}, {}, "colour"),
        ({"image": "ID", "device": "cuda"}, {}, "device"),
        ({"image": "ID", "overlap": 0.9}, {}, "overlap"),
        ({"image": "ID", "overlap": "0.25"}, {}, "overlap"),
        ({"image": "ID", "force": 1}, {}, "force"),
        ({"image": "ID", "bands": []}, {}, "bands"),
        ({"image": "ID", "roi": [0, 0, 10]}, {}, "roi"),
        ({"image": "ID", "roi": [5000, 0, 10, 10]}, {}, "2220 x 2967"),
        ({"image": "ID", "mask_downsample": 3}, {}, "3 is not"),
        ({"image": "ID", "policy": "best"}, {}, "best"),
        ({"image": "ID", "policy": "fixed:9"}, {}, "fixed:9"),
        ({"image": "ID", "coverage": "planned"}, {}, "planned"),
        ({"image": {"href": "https://elsewhere.example/images/1"}}, {}, "elsewhere"),
        ({"image": 7}, {}, "image"),
        ({}, {}, "image"),
        ({"image": "ID"}, {"outputs": {"masque": {}}}, "masque"),
        ({"image": "ID"}, {"outputs": {}}, "outputs"),
        ({"image": "ID", "regions": False}, {"outputs": {"regions": {}}}, "regions"),
        ({"image": "ID"}, {"outputs": {"mask": {"transmissionMode": "value"}}}, "value"),
        ({"image": "ID"}, {"subscriber": {"successUri": "http://x"}}, "subscriber"),
        ({"image": "ID"}, {"response": "xml"}, "response"),
    ],
)
def test_wrong_input_is_refused_by_name(
    service: Service, slide_id: str, inputs: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    given = {key: slide_id if value == "ID" else value for key, value in inputs.items()}
    response = execute(service, given, **more)
    assert response.status_code == 400, response.text
    assert response.json()["code"] == "option-invalid"
    assert words in response.json()["detail"]
    assert response.json()["hint"]


def test_body_that_is_no_json_is_refused(service: Service) -> None:
    response = httpx.post(service.url + EXECUTION, content=b'{"a": ', headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["status"]) == (400, 400)
    assert response.json()["detail"] == "the body: is not JSON: Expecting value at byte 6"


def test_json_without_its_header_is_told_which(service: Service) -> None:
    answer = httpx.post(service.url + EXECUTION, content=b'{"inputs": {"image": "x"}}')
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/jobs", "/images", "/openapi.json", "/jobs/ID", "/jobs/ID/results"])
def test_head_is_answered_where_get_is(service: Service, done: str, path: str) -> None:
    address = service.url + path.replace("ID", done)
    whole, head = httpx.get(address), httpx.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.headers["content-length"] == str(len(whole.content))
    assert httpx.head(f"{service.url}/jobs/nothing").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/images/x", "HEAD, GET, DELETE"),
        ("PATCH", "/images", "HEAD, GET, POST"),
        ("DELETE", EXECUTION, "POST"),
        ("HEAD", EXECUTION, "POST"),
        ("POST", "/jobs/x/results/mask.tif", "HEAD, GET"),
    ],
)
def test_all_methods_of_an_address_are_allowed(service: Service, method: str, path: str, allowed: str) -> None:
    answer = httpx.request(method, service.url + path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused_as_a_problem(service: Service, chunked: bool) -> None:
    body = b'{"inputs": "' + b"x" * (1 << 20) + b'"}'
    content = (part for part in (body[:1000], body[1000:])) if chunked else body
    response = httpx.post(service.url + EXECUTION, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "body-too-large"
    assert response.json()["instance"] == EXECUTION


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


def test_misfit_is_refused_at_submission(client: Client) -> None:
    scene = client.upload(SCENE)
    with pytest.raises(SpacingMismatch) as caught:
        client.submit(scene.id, model="glands", force=True)
    assert "--spacing" in caught.value.hint or "spacing" in caught.value.hint


def test_idempotency_key_gives_the_first_job(service: Service, slide_id: str) -> None:
    headers = {"Idempotency-Key": "once"}
    first = execute(service, {"image": slide_id}, headers=headers)
    again = execute(service, {"image": slide_id}, headers=headers)
    other = execute(service, {"image": slide_id, "overlap": 0.5}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["jobID"] == again.json()["jobID"]
    assert (other.status_code, other.json()["code"]) == (409, "idempotency-conflict")


def test_idempotency_key_gives_the_first_job_after_its_image_has_gone(service: Service, client: Client) -> None:
    image = upload_as(service, "once.svs")
    headers = {"Idempotency-Key": "gone"}
    first = execute(service, {"image": image}, headers=headers).json()["jobID"]
    client.wait(first, every=0.05)
    client.delete_image(image)
    again = execute(service, {"image": image}, headers=headers)
    assert (again.status_code, again.json()["jobID"]) == (201, first)
    assert execute(service, {"image": image, "model": "glands"}, headers=headers).json()["jobID"] == first
    assert execute(service, {"image": image, "overlap": 0.5}, headers=headers).json()["code"] == "no-such-image"
    assert execute(service, {"image": image}).json()["code"] == "no-such-image"


def test_results_are_links_with_digests(service: Service, client: Client, done: str) -> None:
    status = client.job(done)
    assert status.progress == 100
    assert status.finished is not None
    assert status.links[-1].href == f"{service.url}/jobs/{done}/results"
    mask = client.results(done)["mask.tif"]
    assert (mask.length, mask.sha256) == (len(MASK), hashlib.sha256(MASK).hexdigest())
    assert mask.type.startswith("image/tiff")
    assert mask.href == f"{service.url}/jobs/{done}/results/mask.tif"
    assert httpx.get(f"{service.url}/jobs/{done}/results").json().keys() == {"mask", "statistics", "manifest"}


def test_options_reach_the_pipeline(service: Service, done: str) -> None:
    options = httpx.get(f"{service.url}/jobs/{done}/results/statistics.json").json()["options"]
    assert (options["overlap"], options["model"]) == (0.5, "glands")


def test_file_has_ranges_a_strong_etag_and_safe_headers(service: Service, done: str) -> None:
    url = f"{service.url}/jobs/{done}/results/mask.tif"
    whole, head = httpx.get(url), httpx.head(url)
    etag = f'"{hashlib.sha256(MASK).hexdigest()}"'
    assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, MASK, etag)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(MASK)))
    assert whole.headers["content-disposition"] == 'attachment; filename="mask.tif"'
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = httpx.get(url, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, MASK[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(MASK)}"
    stale = httpx.get(url, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (stale.status_code, len(stale.content)) == (200, len(MASK))
    fresh = httpx.get(url, headers={"Range": "bytes=0-9", "If-Range": etag})
    assert fresh.status_code == 206
    assert httpx.get(url, headers={"Range": f"bytes={len(MASK)}-"}).status_code == 416
    for unknown in ("lines=1-2", "bytes=9-2", "bytes=a-b", "bytes=", "bytes=1-2,x"):
        whole = httpx.get(url, headers={"Range": unknown})
        assert (whole.status_code, whole.content) == (200, MASK), unknown
    for known, length in (("Bytes=0-9", 10), ("bytes=-7", 7), ("bytes=5-,", len(MASK) - 5)):
        assert len(httpx.get(url, headers={"Range": known}).content) == length, known
    for tags in (etag, f'"x", W/{etag}', "*"):
        unchanged = httpx.get(url, headers={"If-None-Match": tags})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    assert httpx.get(url, headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.tif", "..%2F..%2Fimages", "%2e%2e"])
def test_file_that_is_not_there(service: Service, done: str, name: str) -> None:
    assert httpx.get(f"{service.url}/jobs/{done}/results/{name}").status_code == 404


def test_unknown_file_names_those_that_exist(client: Client, service: Service, done: str) -> None:
    problem = httpx.get(f"{service.url}/jobs/{done}/results/nothing.tif").json()
    assert problem["code"] == ResultUnknown.code
    assert "mask.tif" in problem["hint"]


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


def test_expired_results_are_gone_and_the_status_stays(service: Service, client: Client, slide_id: str) -> None:
    job = client.wait(client.submit(slide_id).jobID, every=0.05).jobID
    (service.data / "results" / job).rename(service.data / "expired")
    response = httpx.get(f"{service.url}/jobs/{job}/results/mask.tif")
    assert (response.status_code, response.json()["code"]) == (410, "result-gone")
    assert client.job(job).status is JobState.SUCCESSFUL


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

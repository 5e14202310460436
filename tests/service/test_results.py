"""Results over HTTP: links with digests, and files with ranges and tags."""

import hashlib

import httpx
import pytest

from foveate.client import Client
from foveate.errors import ResultUnknown
from foveate.schema import JobState
from tests.service.fake_pipeline import MASK
from tests.service.processes import Service


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


def test_expired_results_are_gone_and_the_status_stays(service: Service, client: Client, slide_id: str) -> None:
    job = client.wait(client.submit(slide_id).jobID, every=0.05).jobID
    (service.data / "results" / job).rename(service.data / "expired")
    response = httpx.get(f"{service.url}/jobs/{job}/results/mask.tif")
    assert (response.status_code, response.json()["code"]) == (410, "result-gone")
    assert client.job(job).status is JobState.SUCCESSFUL

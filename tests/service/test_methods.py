"""HEAD wherever GET is, and what Allow says."""

import httpx
import pytest

from tests.service.processes import EXECUTION, Service


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

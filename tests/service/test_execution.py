"""Executions over HTTP: read as the standard says, refused by name, made once for each key."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from foveate.client import Client
from foveate.errors import SpacingMismatch
from tests.service.processes import EXECUTION, SCENE, Service, execute, upload_as


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


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused_as_a_problem(service: Service, chunked: bool) -> None:
    body = b'{"inputs": "' + b"x" * (1 << 20) + b'"}'
    content = (part for part in (body[:1000], body[1000:])) if chunked else body
    response = httpx.post(service.url + EXECUTION, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "body-too-large"
    assert response.json()["instance"] == EXECUTION


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


def test_options_reach_the_pipeline(service: Service, done: str) -> None:
    options = httpx.get(f"{service.url}/jobs/{done}/results/statistics.json").json()["options"]
    assert (options["overlap"], options["model"]) == (0.5, "glands")

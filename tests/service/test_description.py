"""What the service says of itself: landing page, conformance, process, models, and the OpenAPI document."""

import json
import re
from typing import Any

import httpx
import pytest
from owslib.ogcapi.processes import Processes

from foveate.schema import BundleCard, Problem, ResultFile, SegmentOptions, StatusInfo, StoredImage
from service import examples
from service.routes.landing import CONFORMS_TO
from service.submission import Execute
from tests.service.processes import Service

METHODS = {"get", "post", "delete", "head"}


def get(service: Service, path: str) -> Any:
    response = httpx.get(service.url + path)
    assert response.status_code == 200, response.text
    return response.json()


def test_every_link_of_the_landing_page_works(service: Service) -> None:
    landing = get(service, "/")
    assert {"title", "description", "links"} <= landing.keys()
    rels = {link["rel"].removeprefix("http://www.opengis.net/def/rel/ogc/1.0/") for link in landing["links"]}
    assert {"self", "service-desc", "service-doc", "conformance", "processes", "job-list"} <= rels
    for link in landing["links"]:
        answer = httpx.get(link["href"])
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] in (link["type"], "application/json")


def test_conformance(service: Service) -> None:
    assert get(service, "/conformance") == {"conformsTo": CONFORMS_TO}
    assert not any(uri.endswith(("/callback", "/oas30", "/html")) for uri in CONFORMS_TO)


def test_process_describes_every_input(service: Service) -> None:
    (summary,) = get(service, "/processes")["processes"]
    process = get(service, "/processes/segment")
    assert (summary["id"], process["id"]) == ("segment", "segment")
    assert process["jobControlOptions"] == ["async-execute", "dismiss"]
    assert set(process["inputs"]) == {"image", *SegmentOptions.model_fields}
    for name, described in process["inputs"].items():
        assert {"title", "description", "schema", "minOccurs"} <= described.keys()
        assert described["minOccurs"] == (1 if name == "image" else 0)
    assert process["inputs"]["model"]["schema"]["enum"] == ["glands"]
    assert process["inputs"]["overlap"]["schema"] == {"type": "number", "minimum": 0, "maximum": 0.75, "default": 0.25}
    assert {"mask", "foveation", "overlay", "regions", "statistics", "manifest"} <= process["outputs"].keys()
    unknown = httpx.get(f"{service.url}/processes/echo")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "no-such-process")
    assert unknown.json()["type"].endswith("ogcapi-processes-1/1.0/no-such-process")


def test_models(service: Service) -> None:
    assert [card["name"] for card in get(service, "/models")["models"]] == ["glands"]
    assert BundleCard.model_validate(get(service, "/models/glands")).name == "glands"
    unknown = httpx.get(f"{service.url}/models/none")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "no-such-model")


def test_broken_model_is_listed_with_its_reason(service: Service) -> None:
    broken = service.data / "models" / "broken"
    broken.mkdir()
    (broken / "bundle.json").write_text("{}")
    try:
        (entry,) = get(service, "/models")["broken"]
        assert entry["directory"] == "broken"
        assert entry["hint"]
        problem = httpx.get(f"{service.url}/models/broken").json()
        for said in (entry["message"], problem["detail"]):  # and not where on the service's machine it lies
            assert "broken/bundle.json: " in said and "/broken" not in said
    finally:
        (broken / "bundle.json").unlink()
        broken.rmdir()


def test_every_route_is_described_with_an_example(service: Service) -> None:
    document = get(service, "/openapi.json")
    assert "Problem" in document["components"]["schemas"]
    routes = {(method, path) for path, item in document["paths"].items() for method in item.keys() & METHODS}
    assert {
        ("get", "/"),
        ("get", "/conformance"),
        ("get", "/processes"),
        ("get", "/processes/{process_id}"),
        ("post", "/processes/{process_id}/execution"),
        ("get", "/jobs"),
        ("get", "/jobs/{job_id}"),
        ("delete", "/jobs/{job_id}"),
        ("get", "/jobs/{job_id}/preview"),
        ("get", "/jobs/{job_id}/results"),
        ("get", "/jobs/{job_id}/results/{name}"),
        ("post", "/images"),
        ("get", "/images"),
        ("get", "/images/{image_id}"),
        ("delete", "/images/{image_id}"),
        ("get", "/models"),
        ("get", "/models/{name}"),
        ("get", "/healthz"),
        ("get", "/readyz"),
    } == routes
    for method, path in routes:
        operation = document["paths"][path][method]
        assert operation["summary"]
        success = next(entry for code, entry in operation["responses"].items() if code.startswith("2"))
        if success.get("content"):
            assert any("example" in content for content in success["content"].values()), (method, path)
        if "requestBody" in operation:
            contents = operation["requestBody"]["content"].values()
            assert all("example" in content or "examples" in content for content in contents)


def test_errors_are_described_as_problems(service: Service) -> None:
    document = get(service, "/openapi.json")
    described = document["paths"]["/jobs/{job_id}"]["get"]["responses"]["404"]["content"]["application/problem+json"]
    Problem.model_validate(described["examples"]["no-such-job"]["value"])
    answers = {
        (path, code)
        for path, item in document["paths"].items()
        for operation in item.values()
        for code in operation["responses"]
    }
    assert not [path for path, code in answers if code == "422"]  # it is answered 400
    open_to_all = {path for path in document["paths"] if (path, "401") not in answers}
    assert open_to_all == {"/healthz", "/readyz"}
    assert ("/jobs/{job_id}/results/{name}", "416") in answers
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert named <= document["components"]["schemas"].keys()


def test_examples_are_valid() -> None:
    StoredImage.model_validate(examples.IMAGE)
    BundleCard.model_validate(examples.CARD)
    for status in (examples.ACCEPTED, examples.RUNNING, examples.DISMISSED, *examples.JOBS["jobs"]):
        StatusInfo.model_validate(status)
    for file in examples.RESULTS.values():
        ResultFile.model_validate(file)
    for entry in examples.EXECUTE.values():
        inputs = dict(Execute.model_validate(entry["value"]).inputs)
        inputs.pop("image")
        SegmentOptions.model_validate(inputs)


@pytest.mark.filterwarnings("ignore")
def test_owslib_runs_a_job(service: Service, slide_id: str) -> None:
    server = Processes(f"{service.url}/")
    assert [process["id"] for process in server.processes()] == ["segment"]
    assert "image" in server.process("segment")["inputs"]
    answer = server.execute("segment", {"image": slide_id}, async_=True)
    assert server.response_headers["Location"] == f"{service.url}/jobs/{answer['jobID']}"
    assert get(service, f"/jobs/{answer['jobID']}")["processID"] == "segment"

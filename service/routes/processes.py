"""The one process, `segment`: listed, described, executed (OGC API - Processes, Part 1)."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response

from foveate import __version__
from foveate.errors import BandsMismatch, IdempotencyConflict, ImageUnknown, OptionInvalid, ProcessUnknown
from foveate.schema import SegmentOptions, StatusInfo
from jobs.queue import Delivery
from service.deps import Base, State
from service.errors import responses
from service.examples import ACCEPTED, EXECUTE, shown
from service.outputs import output_schemas
from service.status import status_info
from service.submission import Execute, asked_for, job_request

router = APIRouter(tags=["processes"])

_EXECUTE_REL = "http://www.opengis.net/def/rel/ogc/1.0/execute"
_SUMMARY: dict[str, Any] = {
    "id": "segment",
    "version": __version__,
    "title": "Segment an image",
    "description": "Foveates an image: looks closely where it matters, and writes a registered mask and foveation map.",
    "keywords": ["segmentation", "pathology", "earth observation"],
    "jobControlOptions": ["async-execute", "dismiss"],
    "outputTransmission": ["reference"],
}
_INPUTS = {
    "model": "Name of a bundle; left out: the only one that fits the image",
    "policy": "mean, mode, gumbel, fixed:K, average, random[:SEED] or ensemble; left out: the bundle's",
    "coverage": "How the image is covered; left out: the bundle's",
    "detail": "Share of detail under adaptive coverage, 0 to 1",
    "overlap": "Share of a patch that neighbours share",
    "roi": "x, y, width, height in level-0 pixels",
    "spacing": "Side of a level-0 pixel in the bundle's unit; wins over the file's",
    "bands": "Bands to use, counted from 1, in the bundle's order",
    "rescale": "low, high: source values that become 0 and the top of the model's range (255 for uint8)",
    "mask_downsample": "1, 2, 4, 8…: a smaller mask",
    "tissue_mask": "Skip the empty background of slides",
    "force": "Go on although the image is of another kind than the bundle's",
    "regions": "Write the classes as polygons, too",
    "outputs": "Further files: uncertainty, probabilities; naming them as outputs of the process does the same",
}


@router.get(
    "/processes",
    summary="List the processes",
    responses={200: shown({"processes": [_SUMMARY], "links": []}, "There is one")},
)
def list_processes(base: Base, limit: Annotated[int, Query(ge=1, le=10000, examples=[10])] = 10) -> dict[str, Any]:
    links = [{"href": f"{base}/processes", "rel": "self", "type": "application/json", "title": "the processes"}]
    segment_link = _link(base, "self", "", "the description")
    return {"processes": [{**_SUMMARY, "links": [segment_link]}][:limit], "links": links}


@router.get(
    "/processes/{process_id}",
    summary="Describe a process",
    responses={
        200: shown({**_SUMMARY, "inputs": {}, "outputs": output_schemas(), "links": []}, "Inputs and outputs"),
        **responses(ProcessUnknown),
    },
)
def describe_process(process_id: str, state: State, base: Base) -> dict[str, Any]:
    _check_process(process_id)
    names = [bundle.card.name for bundle in state.catalog.bundles()]
    return {
        **_SUMMARY,
        "inputs": _input_schemas(names),
        "outputs": output_schemas(),
        "links": [
            _link(base, "self", "", "this description"),
            _link(base, _EXECUTE_REL, "/execution", "start a job"),
        ],
    }


@router.post(
    "/processes/{process_id}/execution",
    status_code=201,
    summary="Start a segmentation",
    response_model_exclude_none=True,
    responses={
        201: shown(ACCEPTED, "The job waits for a worker; `Location` names it")
        | {"headers": {"Location": {"description": "Absolute link to the job", "schema": {"type": "string"}}}},
        **responses(OptionInvalid, BandsMismatch, ImageUnknown, ProcessUnknown, IdempotencyConflict),
    },
)
def execute_process(
    process_id: str,
    execute: Annotated[Execute, Body(openapi_examples=EXECUTE)],
    request: Request,
    response: Response,
    state: State,
    base: Base,
    idempotency_key: Annotated[
        str | None, Header(max_length=255, description="Sent again with the same inputs: the first job is returned")
    ] = None,
) -> StatusInfo:
    """Always asynchronous, whatever `Prefer` says: poll the job at `Location`."""
    _check_process(process_id)
    asked = asked_for(execute, base)
    # Before the image and the model are looked up: they may have gone since.
    job = state.store.first(idempotency_key) if idempotency_key else None
    if job is None or not asked.repeats(job.request):
        job, created = state.store.create(job_request(asked, state.files, state.catalog), idempotency_key)
        if created:
            state.queue.put(Delivery(job.id, job.attempt))
    response.headers["Location"] = f"{base}/jobs/{job.id}"
    if _prefers_async(request):
        response.headers["Preference-Applied"] = "respond-async"
    return status_info(job, base, state.files)


def _prefers_async(request: Request) -> bool:
    """RFC 7240: names in any case, in one header or several."""
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)


def _check_process(process_id: str) -> None:
    if process_id != _SUMMARY["id"]:
        raise ProcessUnknown(f"no process {process_id!r}", hint="the one process is called segment")


def _link(base: str, rel: str, path: str, title: str) -> dict[str, str]:
    return {"href": f"{base}/processes/segment{path}", "rel": rel, "type": "application/json", "title": title}


def _input_schemas(models: list[str]) -> dict[str, Any]:
    image = {
        "title": "Image",
        "description": "Id of an image that was sent to POST /images, or a link to it",
        "minOccurs": 1,
        "maxOccurs": 1,
        "schema": {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "required": ["href"],
                    "properties": {"href": {"type": "string", "format": "uri-reference"}},
                },
            ]
        },
    }
    described: dict[str, Any] = {"image": image}
    for name, schema in SegmentOptions.model_json_schema()["properties"].items():
        title = schema.pop("title")
        described[name] = {
            "title": title,
            "description": _INPUTS[name],
            "minOccurs": 0,
            "maxOccurs": 1,
            "schema": _without_null(schema),
        }
    if models:
        described["model"]["schema"]["enum"] = models
    return described


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """An option that may be null is one that may be left out."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf" and value is not None}
    return {**choices[0], **rest}

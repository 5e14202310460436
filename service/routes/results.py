"""Results: the links of a finished job, and its files with ranges and strong ETags."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse

from foveate.errors import ResultGone, ResultNotReady, ResultUnknown, Unexpected, error_of
from foveate.schema import JobState, ResultFile
from service.deps import Base, State
from service.errors import responses
from service.examples import RESULTS, shown
from service.outputs import OUTPUT_IDS, result_file

router = APIRouter(prefix="/jobs/{job_id}/results", tags=["results"])


@router.get(
    "",
    summary="List a job's results",
    responses={
        200: shown(RESULTS, "Links by output id"),
        **responses(ResultNotReady, ResultGone, Unexpected),
    },
)
def list_results(job_id: str, state: State, base: Base) -> dict[str, ResultFile]:
    """A failed job answers with the error that it failed with."""
    _check_finished(state, job_id)
    files = [state.files.result(job_id, name) for name in state.files.result_names(job_id)]
    return {
        OUTPUT_IDS.get(path.name, path.name): result_file(path, f"{base}/jobs/{job_id}/results/{path.name}")
        for path in files
    }


_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file; `Range` and `If-Range` are honoured",
        "content": {"image/tiff; application=geotiff; profile=cloud-optimized": {"example": "the bytes"}},
    },
    206: {"description": "The bytes that `Range` asked for"},
    304: {"description": "`If-None-Match` holds the file's ETag"},
    **responses(ResultNotReady, ResultUnknown, ResultGone),
}


@router.get("/{name}", summary="Download one file", response_class=FileResponse, responses=_FILE)
@router.head("/{name}", summary="Ask for the headers of one file", name="head_result", responses=_FILE)
def download_result(
    job_id: str, name: str, state: State, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    _check_finished(state, job_id)
    path = state.files.result(job_id, name)
    file = result_file(path, "")
    # The digest of the bytes: the same file has the same tag from every service, and ranges of it may be joined.
    headers = {"ETag": f'"{file.sha256}"', "Cache-Control": "private, max-age=0", "X-Content-Type-Options": "nosniff"}
    if if_none_match is not None and _matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, headers=headers, media_type=file.type, filename=path.name)


def _check_finished(state: State, job_id: str) -> None:
    """Returns if the job was successful; raises the job's own error, ResultGone or ResultNotReady otherwise."""
    job = state.store.get(job_id)
    if job.error is not None:
        raise error_of(job.error.code, job.error.message, job.error.hint)
    if job.state is JobState.DISMISSED:
        raise ResultGone(f"job {job_id} was dismissed and has no results", hint="submit it again")
    if job.state is not JobState.SUCCESSFUL:
        message = f"job {job_id} is {job.state.value} at {job.progress} %"
        raise ResultNotReady(message, hint=f"poll GET /jobs/{job_id} until it is successful")


def _matches(header: str, etag: str) -> bool:
    """RFC 9110, 13.1.2: weak comparison, a list, or a star."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or "*" in tags

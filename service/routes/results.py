"""Results: the links of a finished job, and its files with ranges and strong ETags."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse

from foveate.errors import ResultGone, ResultNotReady, ResultUnknown, Unexpected, error_of
from foveate.schema import JobState, ResultFile
from service.deps import Base, State
from service.downloads import DOWNLOAD, download, gone
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
    with _removed_meanwhile():
        files = [state.files.result(job_id, name) for name in state.files.result_names(job_id)]
        return {
            OUTPUT_IDS.get(path.name, path.name): result_file(path, f"{base}/jobs/{job_id}/results/{path.name}")
            for path in files
        }


_FILE = {**DOWNLOAD, **responses(ResultNotReady, ResultUnknown, ResultGone)}


@router.get("/{name}", summary="Download one file", response_class=FileResponse, responses=_FILE)
def download_result(
    job_id: str, name: str, state: State, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    _check_finished(state, job_id)
    with _removed_meanwhile():
        path = state.files.result(job_id, name)
        return download(path, result_file(path, "").sha256, if_none_match)


@contextmanager
def _removed_meanwhile() -> Iterator[None]:
    """Results may go between any two looks at them: each file is read for its length and its digest."""
    try:
        yield
    except FileNotFoundError as error:
        raise gone("the result") from error


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

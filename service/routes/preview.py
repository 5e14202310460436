"""The preview of a job under refined coverage: its mask after the coarse pass, while the rest is computed."""

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse

from foveate.coverage import coverage_kind
from foveate.errors import (
    BundleInvalid,
    BundleUnknown,
    FoveateError,
    JobUnknown,
    ResultGone,
    ResultNotReady,
    ResultUnknown,
)
from jobs.records import JobRecord
from service.deps import Collaborators, State
from service.downloads import DOWNLOAD, download
from service.errors import responses
from service.outputs import file_sha256

router = APIRouter(prefix="/jobs/{job_id}/preview", tags=["results"])

_FILE = {**DOWNLOAD, **responses(JobUnknown, ResultNotReady, ResultUnknown, ResultGone)}


@router.get("", summary="Download the preview of a running job", response_class=FileResponse, responses=_FILE)
def download_preview(job_id: str, state: State, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The whole image's mask at the coarsest scale: from the end of the coarse pass until the job has ended.

    A job that has one links to it with rel `preview`.
    """
    job = state.store.get(job_id)
    path = None if job.state.terminal else state.files.preview(job_id, job.attempt)
    if path is not None:
        with suppress(FileNotFoundError):  # the attempt may end at any moment
            return download(path, file_sha256(path), if_none_match)
    raise _absent(job, state)


def _absent(job: JobRecord, state: Collaborators) -> FoveateError:
    coverage = None
    with suppress(BundleUnknown, BundleInvalid):  # removed since, which says nothing about the preview
        coverage = coverage_kind(state.catalog.bundle(job.request.model).card, job.request.options)
    if coverage not in (None, "refined"):
        return ResultUnknown(
            f"job {job.id} has {coverage} coverage, and only refined coverage shows a preview",
            hint=f"poll GET /jobs/{job.id} until there are results, or submit it with coverage refined",
        )
    if job.state.terminal:
        return ResultGone(
            f"job {job.id} is {job.state.value}, and its preview went with the work",
            hint=f"GET /jobs/{job.id}/results answers with what it came to",
        )
    return ResultNotReady(
        f"job {job.id} is {job.state.value} at {job.progress} %, and its coarse pass is not over",
        hint=f"poll GET /jobs/{job.id} until it has a link with rel preview",
    )

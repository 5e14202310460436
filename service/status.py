"""A job's record as the statusInfo of OGC API - Processes."""

from foveate.errors import ImageUnknown
from foveate.schema import JobState, Link, StatusInfo
from jobs.files import FileStore
from jobs.records import JobRecord
from service.errors import for_http
from service.outputs import media_type

_REL = "http://www.opengis.net/def/rel/ogc/1.0/"

__all__ = ["status_info"]


def status_info(job: JobRecord, base: str, files: FileStore) -> StatusInfo:
    """What clients see of `job`; links are absolute, below `base`."""
    return StatusInfo(
        jobID=job.id,
        status=job.state,
        message=for_http(job.message if job.error is None else job.error.message, files.data) or None,
        created=job.created,
        started=job.started,
        finished=job.finished,
        updated=job.updated,
        progress=job.progress,
        image=job.request.image,
        imageName=_image_name(job.request.image, files),
        model=job.request.model,
        links=_links(job, f"{base}/jobs/{job.id}", files),
    )


def _image_name(image_id: str, files: FileStore) -> str | None:
    # Of the image and not of the job: names may be those of patients, and go when the image is deleted.
    try:
        return files.image(image_id).name
    except ImageUnknown:
        return None


def _links(job: JobRecord, href: str, files: FileStore) -> list[Link]:
    links = [Link(href=href, rel="self", type="application/json", title="this job")]
    preview = files.preview(job.id, job.attempt) if job.state is JobState.RUNNING else None
    if preview is not None:
        links.append(
            Link(
                href=f"{href}/preview", rel="preview", type=media_type(preview.name), title="the mask at a coarse scale"
            )
        )
    if job.state is JobState.SUCCESSFUL:
        links.append(
            Link(href=f"{href}/results", rel=f"{_REL}results", type="application/json", title="the result's files")
        )
    if job.state is JobState.FAILED:
        links.append(
            Link(
                href=f"{href}/results", rel=f"{_REL}exceptions", type="application/problem+json", title="why it failed"
            )
        )
    return links

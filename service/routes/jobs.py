"""Jobs: listed with the filters of OGC API - Processes, inspected, dismissed or removed."""

import datetime as dt
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from foveate.errors import JobUnknown, OptionInvalid
from foveate.schema import JobState, Link, StatusInfo
from jobs.records import JobRecord
from service.deps import Base, State
from service.errors import responses
from service.examples import DISMISSED, JOBS, RUNNING, shown
from service.status import status_info

router = APIRouter(prefix="/jobs", tags=["jobs"])

_EVERY = 1_000_000
POLL_SECONDS = 1


class JobList(BaseModel):
    jobs: list[StatusInfo]
    links: list[Link]


class JobFilters(BaseModel):
    """OGC API - Processes, Part 1, 12: what `GET /jobs` may be narrowed to. Lists have commas between."""

    model_config = {"extra": "forbid"}

    type: str = ""
    processID: str = ""  # noqa: N815
    status: str = ""
    datetime: str = ""
    minDuration: float | None = None  # noqa: N815
    maxDuration: float | None = None  # noqa: N815
    limit: Annotated[int, Query(ge=1, le=10000)] = 10
    offset: Annotated[int, Query(ge=0)] = 0
    cursor: str = ""
    """Of a link `next`: what follows the last job of the page before, whatever has been removed since."""

    def past(self) -> tuple[dt.datetime, str] | None:
        """The job that `cursor` names: when it was created, and its id."""
        moment, _, job_id = self.cursor.partition("_")
        if not self.cursor:
            return None
        try:
            return dt.datetime.fromtimestamp(float(moment), dt.UTC), job_id
        except (ValueError, OverflowError, OSError) as error:
            raise OptionInvalid(
                f"cursor: {self.cursor!r} is none of ours", hint="follow the link with rel next, as it is"
            ) from error

    @property
    def by_duration(self) -> bool:
        return self.minDuration is not None or self.maxDuration is not None

    def states(self) -> list[JobState]:
        try:
            return [JobState(word) for word in self.status.split(",") if word]
        except ValueError as error:
            known = ", ".join(JobState)
            raise OptionInvalid(
                f"status: {self.status!r} is no list of states", hint=f"the states are {known}"
            ) from error

    def excludes_segment(self) -> bool:
        """Whether `type` or `processID` leave nothing: every job here is a process called segment."""
        types, processes = self.type.split(","), self.processID.split(",")
        return (self.type != "" and "process" not in types) or (self.processID != "" and "segment" not in processes)

    def created(self) -> tuple[dt.datetime | None, dt.datetime | None]:
        """(after, before) of `datetime`: an instant, or an interval with ".." or nothing for an open end."""
        if not self.datetime:
            return None, None
        start, _, end = self.datetime.partition("/")
        try:
            after = _moment(start)
            return after, _moment(end) if "/" in self.datetime else after
        except ValueError as error:
            message = f"datetime: {self.datetime!r} is neither a moment nor an interval"
            raise OptionInvalid(message, hint="say 2026-01-05T10:00:00Z, or A/B, A/.. or ../B") from error

    def fits_duration(self, job: JobRecord, now: dt.datetime) -> bool:
        """Jobs that have not started have no duration, and fit no bound."""
        if not self.by_duration:
            return True
        if job.started is None:
            return False
        seconds = ((job.finished or now) - job.started).total_seconds()
        return (self.minDuration or 0.0) <= seconds <= (float("inf") if self.maxDuration is None else self.maxDuration)


@router.get(
    "",
    summary="List the jobs",
    response_model_exclude_none=True,
    responses={200: shown(JOBS, "Newest first; a link `next` where there are more"), **responses(OptionInvalid)},
)
def list_jobs(filters: Annotated[JobFilters, Query()], request: Request, state: State, base: Base) -> JobList:
    found = _find(filters, state)
    links = [Link(href=str(request.url), rel="self", type="application/json", title="these jobs")]
    if len(found) > filters.limit:
        query = filters.model_dump(exclude_defaults=True, exclude={"offset"}) | {"cursor": _cursor(found)}
        href = f"{base}/jobs?{urlencode(query)}"
        links.append(Link(href=href, rel="next", type="application/json", title="older jobs"))
    return JobList(jobs=[status_info(job, base, state.files) for job in found[: filters.limit]], links=links)


@router.get(
    "/{job_id}",
    summary="Look at a job",
    response_model_exclude_none=True,
    responses={200: shown(RUNNING, "Its state and progress"), **responses(JobUnknown)},
)
def show_job(job_id: str, response: Response, state: State, base: Base) -> StatusInfo:
    job = state.store.get(job_id)
    if not job.state.terminal:
        response.headers["Retry-After"] = str(POLL_SECONDS)
    return status_info(job, base, state.files)


@router.delete(
    "/{job_id}",
    summary="Dismiss or remove a job",
    response_model_exclude_none=True,
    responses={200: shown(DISMISSED, "Dismissed, or removed"), **responses(JobUnknown)},
)
def dismiss_job(job_id: str, state: State, base: Base) -> StatusInfo:
    """A job that has not ended is dismissed: its worker stops within seconds. One that has, goes with its files."""
    if not state.store.get(job_id).state.terminal:
        return status_info(state.store.dismiss(job_id), base, state.files)
    job = state.store.get(job_id)
    # The record last: whatever interrupts this, asking again goes on with it.
    state.files.delete_results(job_id)
    state.files.drop_attempts(job_id)
    state.store.remove(job_id)
    gone = status_info(job, base, state.files)
    return gone.model_copy(update={"status": JobState.DISMISSED, "message": "removed, with its results", "links": []})


def _find(filters: JobFilters, state: State) -> list[JobRecord]:
    """One page and, if there is one, the job after it."""
    if filters.excludes_segment():
        return []
    after, before = filters.created()
    wanted = filters.offset + filters.limit + 1
    states = filters.states()
    # Durations are not indexed: all jobs are read then.
    limit = _EVERY if filters.by_duration else wanted
    jobs = state.store.find(states=states, after=after, before=before, past=filters.past(), limit=limit)
    now = dt.datetime.now(dt.UTC)
    return [job for job in jobs if filters.fits_duration(job, now)][filters.offset : wanted]


def _cursor(found: list[JobRecord]) -> str:
    """Names the last job of the page that `found` is, with one more job."""
    return f"{found[-2].created.timestamp():.6f}_{found[-2].id}"


def _moment(text: str) -> dt.datetime | None:
    if text in ("", ".."):
        return None
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)

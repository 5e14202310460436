"""The two records: a job's (Valkey, changes) and an image's (image.json beside its bytes, never changes)."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from foveate.errors import FoveateError
from foveate.schema import ImageInfo, JobState, SegmentOptions, Wire

__all__ = ["MAX_LOSSES", "ErrorTriple", "ImageRecord", "JobRecord", "JobRequest", "new_id"]

MAX_LOSSES = 3
"""A job whose worker or engine was lost so often has failed."""


def new_id() -> str:
    """Twenty hexadecimal digits: hard to guess, and fit for file names, URLs and RQ alike."""
    return secrets.token_hex(10)


@dataclass(frozen=True)
class ErrorTriple:
    """A failed job's error, with the fields of FoveateError."""

    code: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: FoveateError) -> "ErrorTriple":
        return cls(error.code, error.message, error.hint)


@dataclass(frozen=True)
class JobRequest:
    """What a job is asked to do; `options.model` is resolved: the name of a bundle."""

    image: str
    """Id of the image."""
    model: str
    options: SegmentOptions


@dataclass(frozen=True)
class JobRecord:
    """A job at one moment. `attempt` is the fencing token: it grows whenever the job changes hands."""

    id: str
    request: JobRequest
    state: JobState
    attempt: int
    losses: int
    """Attempts that ended with a lost worker or engine."""
    progress: int
    """Percent, never falling, 100 only when successful."""
    message: str
    """What is happening, for people: a stage, or why the job waits again."""
    created: datetime
    updated: datetime
    started: datetime | None
    finished: datetime | None
    worker: str | None
    lease_until: datetime | None
    error: ErrorTriple | None

    @classmethod
    def of_hash(cls, fields: Mapping[str, str]) -> "JobRecord":
        """The inverse of what the scripts in `lua/` write: every value a string, absent where not yet known."""
        error = ErrorTriple(fields["code"], fields["error"], fields["hint"]) if "code" in fields else None
        return cls(
            id=fields["id"],
            request=JobRequest(fields["image"], fields["model"], SegmentOptions.model_validate_json(fields["options"])),
            state=JobState(fields["state"]),
            attempt=int(fields["attempt"]),
            losses=int(fields["losses"]),
            progress=int(fields["progress"]),
            message=fields["message"],
            created=_moment(fields["created"]),
            updated=_moment(fields["updated"]),
            started=_optional_moment(fields.get("started")),
            finished=_optional_moment(fields.get("finished")),
            worker=fields.get("worker"),
            lease_until=_optional_moment(fields.get("lease_until")),
            error=error,
        )


class ImageRecord(Wire):
    """An immutable image; `content/ENTRY` in its directory is what readers open."""

    id: str
    name: str
    """The uploader's name, shown and never opened."""
    sha256: str
    """Of the uploaded bytes (the zip file's, for a slide of several files)."""
    bytes: int
    created: datetime
    entry: str
    """Path below `content/` with names of our own choosing; "." for a directory of DICOM instances."""
    info: ImageInfo


def _moment(seconds: str) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


def _optional_moment(seconds: str | None) -> datetime | None:
    return None if seconds is None else _moment(seconds)

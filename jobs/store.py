"""The truth about jobs: one hash a job in Valkey, changed by the scripts in `lua/` alone.

accepted ──claim──▶ running ──succeed──▶ successful
    ▲                  │ ├──────fail───▶ failed
    └─────requeue──────┘ └── dismiss ──▶ dismissed      (dismiss also from accepted)

Every change names the attempt (the fencing token) that it is made for, and does nothing if another holds the job by
then; made twice, it is made once. Terminal states are never left.
"""

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from foveate.errors import IdempotencyConflict, ImageInUse, ImageUnknown, JobUnknown, WorkerLost
from foveate.schema import JobState
from jobs.records import MAX_LOSSES, ErrorTriple, JobRecord, JobRequest, new_id
from jobs.valkey import valkey_errors

__all__ = ["JobStore"]

_SCRIPTS = Path(__file__).parent / "lua"
_PAGE = 100
_log = logging.getLogger(__name__)
_RETIRED_SECONDS = 24 * 3600


class JobStore:
    """All jobs. Methods may be called from any thread; ServiceUnreachable where Valkey does not answer."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        shared = (_SCRIPTS / "state.lua").read_text()
        names = [path.stem for path in _SCRIPTS.glob("*.lua") if path.stem != "state"]
        self._texts = {name: shared + (_SCRIPTS / f"{name}.lua").read_text() for name in names}
        self._scripts = {name: connection.register_script(text) for name, text in self._texts.items()}

    # --- for the service ------------------------------------------------------------------------------------------

    def create(self, request: JobRequest, idempotency_key: str | None = None) -> tuple[JobRecord, bool]:
        """A new job and True; or the first job that came with the same key and body, and False.

        Raises IdempotencyConflict if that job's body was another one, ImageUnknown if the image is being deleted.
        """
        options = request.options.model_dump_json()
        body = _digest("\n".join((request.image, request.model, options)))
        key = _digest(idempotency_key) if idempotency_key else ""
        verdict, job_id = self._run("create", new_id(), request.image, request.model, options, key, body)
        if verdict == b"conflict":
            raise IdempotencyConflict(
                f"Idempotency-Key {idempotency_key!r} came with another request before (job {job_id.decode()})",
                hint="use a new key for a new request",
            )
        if verdict == b"gone":
            raise ImageUnknown(f"image {request.image!r} was deleted", hint="upload it again with POST /images")
        return self.get(job_id.decode()), verdict == b"created"

    def first(self, idempotency_key: str) -> JobRecord | None:
        """The job that first came with the key, if it has not been removed."""
        with valkey_errors():
            job_id: Any = self._connection.get(f"foveate:idempotency:{_digest(idempotency_key)}")
        return None if job_id is None else self._read([job_id.decode()])[0]

    def get(self, job_id: str) -> JobRecord:
        """JobUnknown if there is none."""
        record = self._read([job_id])[0]
        if record is None:
            raise JobUnknown(f"no job {job_id!r}", hint="`foveate jobs list` or GET /jobs shows those that are here")
        return record

    def find(
        self,
        *,
        states: Collection[JobState] = (),
        after: datetime | None = None,
        before: datetime | None = None,
        past: tuple[datetime, str] | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> list[JobRecord]:
        """Jobs, newest first, of any of `states` (none: all), created in [after, before]; `offset` of them left out.

        `past`: only what comes after the job that was created then and has that id, whether it is still here or not.
        """
        found: list[JobRecord] = []
        if past is not None:
            before = past[0] if before is None else min(before, past[0])
        for ids in self._pages(after, before):
            found += [
                job
                for job in self._read(ids)
                if job is not None
                and (not states or job.state in states)
                and (past is None or (job.created, job.id) < past)
            ]
            if len(found) >= offset + limit:
                break
        return found[offset : offset + limit]

    def live(self) -> list[JobRecord]:
        """Every job that has not ended, in no order."""
        with valkey_errors():
            ids: Any = self._connection.smembers("foveate:live")
        return [job for job in self._read([job_id.decode() for job_id in ids]) if job is not None]

    def dismiss(self, job_id: str) -> JobRecord:
        """Dismiss a job that has not ended: its worker notices and stops. One that has ended stays as it is."""
        self.get(job_id)
        self._run("dismiss", job_id)
        return self.get(job_id)

    def remove(self, job_id: str) -> bool:
        """Forget a job that has ended; False if it has not."""
        return bool(self._run("remove", job_id))

    def retire_image(self, image_id: str) -> None:
        """Keep new jobs from using an image that is about to be deleted; ImageInUse while live jobs read it."""
        users = sorted(user.decode() for user in self._run("retire", image_id, _RETIRED_SECONDS))
        if users:
            raise ImageInUse(
                f"image {image_id!r} is used by {len(users)} jobs: {', '.join(users[:3])}",
                hint="wait for them, or dismiss them with DELETE /jobs/{id}",
            )

    @valkey_errors()
    def retired(self, image_ids: Sequence[str]) -> list[str]:
        """Those of `image_ids` that `retire_image` has closed to new jobs."""
        pipeline = self._connection.pipeline(transaction=False)
        for image_id in image_ids:
            pipeline.exists(f"foveate:gone:{image_id}")
        return [image_id for image_id, gone in zip(image_ids, pipeline.execute(), strict=True) if gone]

    # --- for the worker and the reaper ------------------------------------------------------------------------------

    def claim(self, job_id: str, attempt: int, worker: str, lease_seconds: float) -> bool:
        """True if `worker` holds the job now; False: the delivery is stale or a duplicate."""
        return bool(self._run("claim", job_id, attempt, worker, lease_seconds))

    def renew(self, job_id: str, attempt: int, lease_seconds: float, percent: int, message: str) -> bool:
        """Report progress, which alone renews the lease; False: the attempt no longer holds the job."""
        return bool(self._run("renew", job_id, attempt, lease_seconds, percent, message))

    @valkey_errors()
    def holds(self, job_id: str, attempt: int) -> bool:
        """Whether the attempt still holds the job; no longer after a dismissal or an expired lease."""
        state, current = self._connection.hmget(f"foveate:job:{job_id}", ["state", "attempt"])
        return state == JobState.RUNNING.encode() and current == str(attempt).encode()

    def succeed(self, job_id: str) -> bool:
        """A result is published, by whatever attempt: it beats every other verdict but a terminal one (False)."""
        return bool(self._run("succeed", job_id))

    def fail(self, job_id: str, attempt: int, error: ErrorTriple) -> bool:
        """No further attempt would help; False if the attempt does not hold the job."""
        return bool(self._run("fail", job_id, attempt, error.code, error.message, error.hint))

    def requeue(self, job_id: str, attempt: int, lost: ErrorTriple) -> bool:
        """The attempt ended by no fault of the job: True if the job waits as attempt + 1 and must be delivered.

        After MAX_LOSSES losses the job fails with `lost` instead.
        """
        return self._requeue(job_id, attempt, lost, only_expired=False, loss=True)

    def release(self, job_id: str, attempt: int, reason: str) -> bool:
        """Give a job back, as at an orderly end of the worker: as `requeue`, and it does not count as a loss."""
        return self._requeue(job_id, attempt, _lost(reason), only_expired=False, loss=False)

    def reap(self, job_id: str, attempt: int) -> bool:
        """As `requeue`, if the lease of the attempt has expired by Valkey's clock."""
        lost = _lost(f"attempt {attempt} reported no progress within its lease: its worker is gone or stuck")
        return self._requeue(job_id, attempt, lost, only_expired=True, loss=True)

    def _requeue(self, job_id: str, attempt: int, lost: ErrorTriple, *, only_expired: bool, loss: bool) -> bool:
        flags = (int(only_expired), int(loss), MAX_LOSSES)
        return bool(self._run("requeue", job_id, attempt, *flags, lost.code, lost.message, lost.hint))

    def _pages(self, after: datetime | None, before: datetime | None) -> Iterator[list[str]]:
        """Ids of the jobs created in [after, before], newest first, _PAGE at once.

        A page begins where the one before ended, by its time and not by its number: jobs come and go meanwhile.
        """
        high: str | float = "+inf" if before is None else before.timestamp()
        low = "-inf" if after is None else after.timestamp()
        start = 0
        while True:
            with valkey_errors():
                page: Any = self._connection.zrevrangebyscore("foveate:jobs", high, low, start, _PAGE, withscores=True)
            yield [job_id.decode() for job_id, _ in page]
            if len(page) < _PAGE:
                return
            times = [time for _, time in page]
            start = times.count(times[-1]) + (start if times[-1] == high else 0)
            high = times[-1]

    @valkey_errors()
    def _read(self, job_ids: list[str]) -> list[JobRecord | None]:
        pipeline = self._connection.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hgetall(f"foveate:job:{job_id}")
        return [
            _parsed({name.decode(): value.decode() for name, value in fields.items()}) for fields in pipeline.execute()
        ]

    @valkey_errors()
    def _run(self, script: str, *arguments: str | float) -> Any:
        try:
            return self._scripts[script](args=arguments)
        except NoScriptError:
            # A server that has started again between being told the script and running it, as on a full disk, has
            # forgotten it once more: now script and command go together, as often as they are sent.
            return self._connection.eval(self._texts[script], 0, *arguments)


def _parsed(fields: Mapping[str, str]) -> JobRecord | None:
    """None for no record, and for one that another version of Foveate wrote: one such must not hide all others."""
    try:
        return JobRecord.of_hash(fields) if fields else None
    except (KeyError, ValueError):
        _log.exception("event=record-unreadable job=%s", fields.get("id"))
        return None


def _lost(reason: str) -> ErrorTriple:
    hint = "submit it again: committed blocks are reused; the worker's log and its memory limit may tell why"
    return ErrorTriple(WorkerLost.code, reason, hint)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

"""The only use of RQ: it carries (job id, attempt) under one name, as JSON. The truth lies in `jobs/store.py`.

RQ's own workers, heartbeats, timeouts, retries and registries are not used: each has a measured hole (service-facts 3).
"""

import logging
import secrets
from dataclasses import dataclass

from redis import Redis
from rq import Queue
from rq.exceptions import DequeueTimeout, DeserializationError
from rq.job import Job

from jobs.valkey import valkey_errors

__all__ = ["TASK", "Delivery", "JobQueue"]

TASK = "worker.process.run_job"
"""The one task that is ever put in or taken out; a task is never imported by its name."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """Says that `attempt` at the job may begin; may come twice, or never: the reaper delivers again."""

    job_id: str
    attempt: int


class JobQueue:
    """First in, first out. ServiceUnreachable where Valkey does not answer."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._queue = Queue("foveate", connection=connection, serializer="json")

    @valkey_errors()
    def put(self, delivery: Delivery) -> None:
        """Deliver at the end of the line."""
        # A name of its own for every message: RQ deletes by name, and a second delivery must not vanish with the first.
        name = f"{delivery.job_id}_{delivery.attempt}_{secrets.token_hex(4)}"
        self._queue.enqueue_call(TASK, args=(delivery.job_id, delivery.attempt), job_id=name, description=name)

    @valkey_errors()
    def take(self, timeout_seconds: int) -> Delivery | None:
        """The next delivery, waiting for it at most `timeout_seconds` (1 to 4: below `jobs.valkey.SOCKET_SECONDS`)."""
        try:
            found = Queue.dequeue_any([self._queue], timeout_seconds, self._connection, serializer="json")
        except DequeueTimeout:
            return None
        if found is None:
            return None
        message = found[0]
        delivery = _delivery(message)
        self._connection.lrem(self._queue.intermediate_queue_key, 1, message.id)
        message.delete(remove_from_queue=False)
        return delivery

    @valkey_errors()
    def waiting(self) -> set[Delivery]:
        """What has been put and not yet taken."""
        names = (name.rsplit("_", 2) for name in self._queue.get_job_ids())
        return {Delivery(name[0], int(name[1])) for name in names if len(name) == 3 and name[1].isdigit()}


def _delivery(message: Job) -> Delivery | None:
    """None for what we did not put there: whoever can write to Valkey must not choose what a worker runs."""
    try:
        task, arguments = message.func_name, message.args
    except DeserializationError:
        task, arguments = None, []
    match (task, *arguments):
        case (name, str() as job_id, int() as attempt) if name == TASK:
            return Delivery(job_id, attempt)
    _log.warning("event=foreign-message id=%s task=%r", message.id, task)
    return None

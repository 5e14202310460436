"""RQ as transport: what we put comes out in order, and what others put does nothing."""

import os
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from foveate.errors import ServiceUnreachable
from foveate.resolve import resolve
from jobs.queue import TASK, Delivery, JobQueue
from jobs.valkey import connect


def test_deliveries_come_out_in_order_and_leave_nothing(queue: JobQueue, connection: Redis) -> None:
    sent = [Delivery(f"job{k}", k + 1) for k in range(5)]
    for delivery in sent:
        queue.put(delivery)
    assert queue.waiting() == set(sent)
    assert [queue.take(1) for _ in sent] == sent
    assert queue.waiting() == set()
    assert queue.take(1) is None
    assert connection.keys("rq:job:*") == connection.keys("rq:queue:*") == []


def test_a_delivery_may_be_put_twice(queue: JobQueue) -> None:
    for _ in range(2):
        queue.put(Delivery("job", 1))
    assert [queue.take(1), queue.take(1), queue.take(1)] == [Delivery("job", 1), Delivery("job", 1), None]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_foreign_task_is_dropped_and_not_run(
    queue: JobQueue, connection: Redis, tmp_path: Path, serializer: str
) -> None:
    foreign = Queue("foveate", connection=connection, serializer=serializer)
    foreign.enqueue_call("os.mkdir", args=(str(tmp_path / "made"),))
    foreign.enqueue_call(os.mkdir, args=(str(tmp_path / "made"),))
    foreign.enqueue_call(TASK, args=("job", "no number"))
    queue.put(Delivery("job", 1))
    assert [queue.take(1) for _ in range(4)] == [None, None, None, Delivery("job", 1)]
    assert not (tmp_path / "made").exists()


def test_the_task_is_a_function_that_exists() -> None:
    module, _, name = TASK.rpartition(".")
    assert callable(resolve(f"{module}:{name}"))


def test_no_valkey_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnreachable, match="Valkey does not answer"):
        JobQueue(connect(f"unix://{tmp_path}/nobody.sock")).put(Delivery("job", 1))

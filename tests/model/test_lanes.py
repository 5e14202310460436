"""Work side by side: in order, bounded, and with every core given out once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from model.lanes import Lanes, ahead, threads_of_a_lane

CPU = torch.device("cpu")


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_tasks_though_they_end_in_another():
    second = threading.Event()

    def work(task):
        if task == 0:
            assert second.wait(60), "the second task is worked on beside the first"
        else:
            second.set()
        return -task

    with ThreadPoolExecutor(2) as executor:
        assert list(ahead(range(20), work, executor, 4)) == [(k, -k) for k in range(20)]


def test_no_more_is_taken_than_may_be_held():
    taken = []

    def tasks():
        for k in range(10):
            taken.append(k)
            yield k

    with ThreadPoolExecutor(2) as executor:
        results = ahead(tasks(), lambda k: k, executor, 3)
        assert next(results) == (0, 0)
        assert taken == [0, 1, 2]
        assert next(results) == (1, 1)
        assert taken == [0, 1, 2, 3]


def test_an_error_comes_in_its_place_and_ends_the_rest():
    def work(task):
        if task == 2:
            raise ValueError("bad")
        return task

    with ThreadPoolExecutor(1) as executor:
        results = ahead(range(100), work, executor, 4)
        assert [next(results), next(results)] == [(0, 0), (1, 1)]
        with pytest.raises(ValueError, match="bad"):
            next(results)


def test_the_lanes_of_a_cpu_share_out_its_threads_and_give_them_back(four_threads):
    meeting = threading.Barrier(4)

    def work(task):
        meeting.wait(60)
        return torch.get_num_threads()

    with Lanes(CPU) as lanes:
        assert lanes.count == 4
        assert torch.get_num_threads() == 1
        assert [found for _, found in lanes.map(work, range(8))] == [1] * 8
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    ("cores", "count", "share"), [(1, 1, 1), (5, 4, 1), (6, 3, 2), (7, 3, 2), (8, 4, 2), (9, 3, 3), (16, 4, 4)]
)
def test_lanes_share_many_cores_evenly_and_leave_few_over(four_threads, cores, count, share):
    torch.set_num_threads(cores)
    with Lanes(CPU) as lanes:
        assert lanes.count == count
        assert [found for _, found in lanes.map(lambda task: torch.get_num_threads(), range(3))] == [share] * 3
    assert torch.get_num_threads() == cores
    with threads_of_a_lane():
        assert torch.get_num_threads() == share


def test_a_slow_task_holds_up_no_other_where_the_order_does_not_matter(four_threads):
    last = threading.Event()

    def work(task):
        if task == 0:
            assert last.wait(60), "all others are worked on beside the first"
        if task == 9:
            last.set()
        return -task

    with Lanes(CPU) as lanes:
        found = list(lanes.as_completed(work, range(10), 9))
    assert sorted(found) == [(k, -k) for k in range(10)]


@pytest.mark.parametrize(("most", "held"), [(9, 5), (3, 3), (1, 1)])
def test_of_large_results_there_are_no_more_than_lanes_and_one_or_what_is_allowed(four_threads, most, held):
    taken = []

    def tasks():
        for k in range(20):
            taken.append(k)
            yield k

    with Lanes(CPU) as lanes:
        results = lanes.as_completed(lambda task: task, tasks(), most)
        for more in range(3):
            next(results)
            assert taken == list(range(held + more))
        results.close()


def test_an_error_in_any_order_ends_the_rest(four_threads):
    begun, over = [], threading.Event()

    def work(task):
        begun.append(task)
        if task == 2:
            raise ValueError("bad")
        assert task < 2 or over.wait(60)

    with Lanes(CPU) as lanes:
        with pytest.raises(ValueError, match="bad"):
            for _ in lanes.as_completed(work, range(1000), 9):
                pass
        over.set()
    assert len(begun) <= 7


@pytest.mark.parametrize("order", ["map", "as_completed"])
def test_another_device_works_in_the_thread_that_asks_and_not_ahead(order):
    taken = []

    def tasks():
        for k in range(3):
            taken.append(k)
            yield k

    with Lanes(torch.device("meta")) as lanes:
        more = [4] if order == "as_completed" else []
        results = getattr(lanes, order)(lambda task: threading.current_thread(), tasks(), *more)
        assert next(results) == (0, threading.current_thread())
        assert taken == [0]

"""What is run next under a root, and what one child's prediction teaches of another."""

import numpy as np

from model.chooser import Candidate, Chooser
from model.tree import Node

LAWN = np.array([0.1, 0.9, 0.0], np.float32)
ROOF = np.array([0.0, 0.1, 0.9], np.float32)
PROBE = Node(0, 3, 3)


def candidates(needs, looks):
    """In one row, none of them a probe."""
    return [Candidate(Node(0, 0, k), need, 1.0, look) for k, (need, look) in enumerate(zip(needs, looks, strict=True))]


def test_a_plain_need_is_parted_by_the_threshold_once():
    plain = [Candidate(Node(0, row, 2), need) for row, need in ((2, 0.9), (0, 1.1), (1, 1.0))]
    chooser = Chooser(plain, 1.0)
    assert chooser.next() == [1]
    chooser.observe(1, 100.0)
    assert chooser.next() == []


def test_a_surprise_is_worth_more_of_what_looks_alike():
    chooser = Chooser(candidates([1.1, 0.8, 0.8, 0.1], [LAWN, LAWN, ROOF, LAWN]), 1.0)
    assert chooser.next() == [0]
    chooser.observe(0, 1.0)
    assert chooser.next() == [1]
    # The second went as expected, and takes away from what the first has taught.
    chooser.observe(1, 1 / 3)
    assert chooser.next() == []


def test_what_changes_nothing_stops_there():
    chooser = Chooser(candidates([1.1, 0.99, 0.5], [LAWN] * 3), 1.0)
    assert chooser.next() == [0]
    chooser.observe(0, 0.0)
    assert chooser.next() == []


def test_a_probe_is_run_at_a_quarter_of_the_need_and_only_at_first():
    places = [PROBE, Node(0, 9, 3), Node(0, 3, 4)]
    chooser = Chooser(
        [Candidate(node, need, 1.0, LAWN) for node, need in zip(places, (0.3, 0.24, 0.9), strict=True)], 1.0
    )
    assert chooser.next() == [0]
    chooser.observe(0, 3.0)
    assert chooser.next() == [1, 2]


def test_a_sure_prediction_that_was_wrong_is_no_more_than_a_bounded_surprise():
    sure = [Candidate(PROBE, 0.6, 0.0, LAWN), Candidate(Node(0, 0, 0), 0.1, 0.0, LAWN)]
    chooser = Chooser(sure, 1.0)
    chooser.next()
    chooser.observe(0, 2.0)
    # (prior 0.5 + 10) / 1.5 = 7 times the need, and not infinitely often.
    assert chooser.next() == []

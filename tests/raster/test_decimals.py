"""Numbers printed together read back as they were."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raster.decimals import point_text

numbers = st.integers(-(10**12) + 1, 10**12 - 1)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20), st.sampled_from([0, 7, 9]))
def test_points_read_back_exactly(points: list[tuple[int, int]], decimals: int) -> None:
    text, ends = point_text(np.array(points, np.int64), decimals)
    for point, start, end in zip(points, ends[:-1], ends[1:], strict=True):
        assert text[end - 2 : end] == b"],"
        found = json.loads(text[start : end - 1], parse_float=lambda digits: int(digits.replace(".", "")))
        assert found == list(point)


@pytest.mark.parametrize(("value", "decimals", "shown"), [(0, 7, b"0.0000000"), (-5, 7, b"-0.0000005"), (10, 0, b"10")])
def test_digits(value: int, decimals: int, shown: bytes) -> None:
    assert point_text(np.array([[value, value]]), decimals)[0] == b"[%s,%s]," % (shown, shown)

"""What canvases are made of: bytes packed and unpacked, and their checksums."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raster.packing import crc32, packed, unpacked


@given(st.binary(max_size=2000), st.integers(1, 50))
def test_what_was_packed_comes_back(content, times):
    assert unpacked(packed(memoryview(content * times))) == content * times


@pytest.mark.parametrize("content", [b"not packed", packed(b"0123456789" * 99)[:-7]])
def test_what_was_not_packed_or_is_cut_short_is_a_value_error(content):
    with pytest.raises(ValueError):
        unpacked(content)


@given(st.lists(st.binary(max_size=200)))
def test_checksums_of_parts_are_zlibs_of_the_whole(parts):
    found = 0
    for part in parts:
        found = crc32(part, found)
    assert found == zlib.crc32(b"".join(parts))

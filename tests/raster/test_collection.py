"""Features written one by one into a file that keeps the largest."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raster.collection import FeatureFile
from raster.features import Feature

HEAD = b'{"type": "FeatureCollection", "features": ['


def feature(index: int, pixels: int) -> Feature:
    text = json.dumps({"id": index, "pixels": pixels, "long": "x" * (index % 7)}).encode()
    return Feature([text[:5], text[5:]], pixels)


def written(path: Path, pixels: list[int], minimum: int, most: int, room: int) -> tuple[FeatureFile, dict[str, Any]]:
    with path.open("w+b") as file:
        found = FeatureFile(file, room, minimum, most)
        for index, size in enumerate(pixels):
            found.extend([feature(index, size)])
        count, area = found.settle()
        found.finish(HEAD)
    content = json.loads(path.read_bytes())
    assert (count, area) == (len(content["features"]), sum(one["pixels"] for one in content["features"]))
    return found, content


@given(
    pixels=st.lists(st.integers(1, 60), max_size=200),
    minimum=st.integers(0, 30),
    most=st.integers(1, 40),
    spare=st.integers(1, 50),
    part=st.sampled_from([1, 7, 1 << 20]),
)
def test_the_largest_features_remain_in_the_order_of_their_coming(
    tmp_path_factory: pytest.TempPathFactory, pixels: list[int], minimum: int, most: int, spare: int, part: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raster.collection._PART_BYTES", part)
        keeps_the_largest(tmp_path_factory, pixels, minimum, most, spare)


def keeps_the_largest(
    tmp_path_factory: pytest.TempPathFactory, pixels: list[int], minimum: int, most: int, spare: int
) -> None:
    path = tmp_path_factory.mktemp("collection") / "regions.geojson"
    found, content = written(path, pixels, minimum, most, len(HEAD) + spare)
    remaining = [json.loads(b"".join(feature(k, size).parts)) for k, size in enumerate(pixels) if size >= found.minimum]
    assert content["features"] == remaining
    assert len(remaining) <= most
    assert found.minimum >= max(1, minimum)
    if found.minimum > max(1, minimum):
        one_less = [size for size in pixels if size >= found.minimum - 1]
        assert len(one_less) > most, "the minimum rises no further than it must"


def test_a_head_that_has_no_room_is_an_error_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "regions.geojson"
    with path.open("w+b") as file:
        found = FeatureFile(file, len(HEAD), 1, 10)
        found.extend([feature(0, 5)])
        file.flush()
        before = path.read_bytes()
        with pytest.raises(ValueError, match="have no room"):
            found.finish(HEAD)
    assert path.read_bytes() == before

"""statistics.json: shares of what was examined, areas in the unit of the spacing."""

from pathlib import Path

import numpy as np
import pytest

from foveate.errors import DiskFull
from foveate.schema import ClassCard, SpacingInfo
from raster.statistics import statistics
from raster.whole_file import whole_file, write_json

CLASSES = (ClassCard(value=0, name="stroma", color=(1, 2, 3)), ClassCard(value=2, name="gland", color=(4, 5, 6)))


def counts(**pixels: int) -> list[int]:
    found = np.zeros(256, dtype=np.int64)
    for value, number in pixels.items():
        found[int(value[1:])] = number
    return found.tolist()


def test_shares_are_of_the_examined_pixels() -> None:
    content = statistics(
        CLASSES,
        counts(v0=30, v2=10, v255=60),
        counts(v0=120, v2=38),
        SpacingInfo(x=0.5, y=0.25, unit="um", origin="file"),
    )
    assert content == {
        "classes": [
            {"value": 0, "name": "stroma", "pixels": 30, "share": 0.75, "area": 15.0, "area_unit": "um2"},
            {"value": 2, "name": "gland", "pixels": 10, "share": 0.25, "area": 4.75, "area_unit": "um2"},
        ],
        "examined_pixels": 40,
        "total_pixels": 100,
    }


@pytest.mark.parametrize(
    ("spacing", "area", "unit"),
    [(None, 30, "px"), (SpacingInfo(x=0.1, y=0.1, unit="m", origin="crs"), 0.3, "m2")],
)
def test_area_follows_the_spacing(spacing: SpacingInfo | None, area: float, unit: str) -> None:
    first = statistics(CLASSES, counts(v0=30), counts(v0=30), spacing)["classes"][0]
    assert (first["area"], first["area_unit"]) == (area, unit)


def test_nothing_examined_has_no_shares() -> None:
    content = statistics(CLASSES, counts(v255=9), counts(v255=9), None)
    assert [entry["share"] for entry in content["classes"]] == [0.0, 0.0]
    assert content["examined_pixels"] == 0


def test_json_is_the_same_bytes_and_never_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "é", "a": 1.5})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "b": "é",\n  "a": 1.5\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"older")
    with (
        pytest.raises(DiskFull, match=r"a\.bin"),
        whole_file(tmp_path / "a.bin") as partial,
        partial.open("wb") as file,
    ):
        file.write(b"x")
        Path("/dev/full").write_bytes(b"x" * 10_000)
    assert (tmp_path / "a.bin").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1

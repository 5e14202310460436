"""Ranges are read in time that grows with their length, and answered as RFC 9110 has it."""

from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from jobs.files import FileStore
from service.app import create_app
from service.downloads import _ranges
from service.routes import results
from service.settings import ServiceSettings
from tests.service.fake_pipeline import MASK
from tests.service.processes import Service

DIGITS = "9" * 3900


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-9", [(0, 9)]),
        ("Bytes = 90-200", [(90, 99)]),
        ("bytes=-7", [(93, 99)]),
        ("bytes=-700", [(0, 99)]),
        ("bytes=5-,", [(5, 99)]),
        ("bytes=, 0-1 ,\t4-5", [(0, 1), (4, 5)]),
        ("bytes=0-0,99999999-", [(0, 0)]),
        (f"bytes=0-{DIGITS}", [(0, 99)]),
        (f"bytes=-{DIGITS}", [(0, 99)]),
        (f"bytes={DIGITS}-", []),
        ("bytes=100-", []),
        ("bytes=-0", []),
        ("lines=1-2", None),
        ("bytes", None),
        ("bytes=", None),
        ("bytes=,", None),
        ("bytes=-", None),
        ("bytes=9-2", None),
        ("bytes=a-b", None),
        ("bytes=1-2,x", None),
        ("bytes=1 - 2", None),
        ("bytes=٣-", None),
        ("bytes=" + " ," * 24 + "x", None),  # a pattern for the whole list took seconds, twice as many for each comma
        ("bytes=" + " ," * 1990 + "x", None),
        ("bytes=0-" + "9" * 5000, None),
    ],
)
def test_a_range_is_satisfied_refused_or_ignored(header: str, wanted: list[tuple[int, int]] | None) -> None:
    assert _ranges(header, 100) == wanted


def test_an_empty_file_has_no_range() -> None:
    assert _ranges("bytes=0-", 0) == _ranges("bytes=-5", 0) == []


def test_ranges_over_http(service: Service, done: str) -> None:
    url = f"{service.url}/jobs/{done}/results/mask.tif"

    def asked(*ranges: str, **more: str) -> httpx.Response:
        return httpx.get(url, headers=[*(("Range", value) for value in ranges), *more.items()])

    assert asked("bytes=0-0,99999999-").content == MASK[:1]
    assert asked("bytes=7-" + "9" * 3000).content == MASK[7:]
    for ignored in (("bytes=" + " ," * 24 + "x",), ("bytes=0-" + "9" * 5000,), ("bytes=0-1", "bytes=4-5")):
        assert (asked(*ignored).status_code, asked(*ignored).content) == (200, MASK)
    assert asked("bytes=0-1,10-11").headers["content-type"].startswith("multipart/byteranges")
    refused = asked("bytes=" + "9" * 3000 + "-")
    assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{len(MASK)}")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "range-not-satisfiable"
    assert asked(f"bytes={len(MASK)}-", **{"If-Range": '"other"'}).content == MASK
    dated = asked("bytes=0-1", **{"If-Range": date_of(url)})
    assert (dated.status_code, dated.content) == (206, MASK[:2])


def test_head_tells_of_the_whole_file_whatever_range_it_names(service: Service, done: str) -> None:
    for header in ("bytes=0-9", "bytes=0-1,4-5", f"bytes={len(MASK)}-"):
        head = httpx.head(f"{service.url}/jobs/{done}/results/mask.tif", headers={"Range": header})
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(MASK))), header


def date_of(url: str) -> str:
    return httpx.head(url).headers["last-modified"]


@pytest.mark.parametrize("missing", ["manifest.json", "mask.tif"])
@pytest.mark.parametrize("path", ["", "/mask.tif"])
def test_a_result_that_goes_while_it_is_read_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, path: str
) -> None:
    """The listing still has the file, and a moment later it is not there any more."""
    files = FileStore(tmp_path)
    out = files.results / "job"
    out.mkdir()
    for name in {"manifest.json", "mask.tif"} - {missing}:
        (out / name).write_text('{"files": {}}')
    names = ["manifest.json", "mask.tif"]
    monkeypatch.setattr(FileStore, "result_names", lambda *_: names)
    monkeypatch.setattr(results, "_check_finished", lambda *_: None)
    app = create_app(ServiceSettings(data=tmp_path))
    answer = TestClient(app, raise_server_exceptions=False).get(f"/jobs/job/results{path}")
    assert (answer.status_code, answer.json()["code"]) == (410, "result-gone")

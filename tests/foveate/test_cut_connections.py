"""Connections that end too early, answers that are lost, and disks that take nothing: what the client makes of them."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import pytest

from foveate import client as module
from foveate.cli import run
from foveate.client import CHUNK, Client
from foveate.errors import DiskFull, ImageMissing, OptionInvalid, OutputExists, ServiceUnreachable, UploadInvalid
from foveate.localfiles import arriving, local_errors
from foveate.schema import StatusInfo

ROOT = Path(__file__).parents[2]
MASK = bytes(range(256)) * 10_000
INFO = {
    "name": "a.tif",
    "kind": "scene",
    "driver": "GTiff",
    "reader": "rasterio",
    "width": 1,
    "height": 1,
    "levels": [],
    "bands": ["gray"],
    "dtype": "uint8",
    "spacing": None,
    "crs": None,
    "transform": None,
}
IMAGE = {"id": "image", "sha256": "0", "bytes": 1, "created": "2026-01-05T09:59:30Z", "info": INFO}


class Flaky(http.server.ThreadingHTTPServer):
    """A Foveate of one image and one job. `cuts`: how often the answer to each path is cut off from now on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Flaky)
        self.cuts: dict[str, int] = {}
        self.ranges = True
        self.states = ["successful"]
        """Of the jobs that are started; the last one is that of all further ones, too."""
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.names: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self, method: str, path: str) -> list[dict[str, str]]:
        return [headers for found, place, headers in self.seen if (found, place) == (method, path)]


class _Flaky(http.server.BaseHTTPRequestHandler):
    def _answer(self) -> None:
        server = cast("Flaky", self.server)
        expected = int(self.headers.get("Content-Length", 0))
        if len(self.rfile.read(expected)) < expected:
            self.close_connection = True
            return
        path, _, query = self.path.partition("?")
        server.names += parse_qs(query).get("name", [])
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.seen.append((self.command, path, headers))
        cut = server.cuts.get(path, 0) > 0
        if cut:
            server.cuts[path] -= 1
        status, body, more = 200, MASK, {"ETag": f'"{hashlib.sha256(MASK).hexdigest()}"'}
        if not path.endswith("mask.tif"):
            body, more = json.dumps(self._document(path)).encode(), {}
        elif server.ranges and "range" in headers and headers.get("if-range") == more["ETag"]:
            start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
            status, body = (206, MASK[start:]) if start < len(MASK) else (416, b"")
            more["Content-Range"] = f"bytes {start}-{len(MASK) - 1}/{len(MASK)}"
        if self.command == "DELETE":
            status, body = 204, b""
        if cut and path != "/jobs/job/results/mask.tif":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | more).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = cut

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def _document(self, path: str) -> dict[str, Any]:
        digest = hashlib.sha256(MASK).hexdigest()
        link = {"href": "http://x/jobs/job/results/mask.tif", "type": "image/tiff", "title": "mask.tif"}
        if path == "/jobs/job/results":
            return {"mask": {**link, "length": len(MASK), "sha256": digest}}
        if path == "/images":
            return IMAGE
        states = cast("Flaky", self.server).states
        number = len(states)
        state = states.pop(0) if path.endswith("/execution") and number > 1 else states[0]
        return {"jobID": "job" if number == 1 else f"job-{number}", "status": state}

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with Flaky() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "a.tif").write_bytes(b"pixels")
    return tmp_path / "a.tif"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_is_cut_goes_on(flaky: Flaky, tmp_path: Path, ranges: bool) -> None:
    flaky.cuts = {"/jobs/job/results/mask.tif": 3}
    flaky.ranges = ranges
    with Client(flaky.url) as client:
        client.job("job")
        client.fetch("job", tmp_path / "out")
    assert (tmp_path / "out" / "mask.tif").read_bytes() == MASK
    asked = flaky.asked("GET", "/jobs/job/results/mask.tif")
    assert len(asked) == 4
    assert "range" not in asked[0] and all("range" in headers for headers in asked[1:])


def test_a_cut_connection_does_not_fail_a_successful_job(
    flaky: Flaky, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.cuts = {"/jobs/job": 1, "/jobs/job/results": 1, "/jobs/job/results/mask.tif": 1}
    assert run(["submit", str(image), "--server", flaky.url, "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["jobs"][0]["status"] == "successful"
    assert f"{image}: job job" in printed.err
    assert (tmp_path / "out" / "mask.tif").read_bytes() == MASK


def test_results_that_cannot_be_had_do_not_change_what_the_service_said(
    flaky: Flaky, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    flaky.cuts = {"/jobs/job/results": 1}
    assert run(["submit", str(image), "--server", flaky.url, "--out", str(tmp_path / "out"), "--json"]) == 1
    (job,) = json.loads(capsys.readouterr().out)["jobs"]
    assert (job["status"], job["error"]["code"]) == ("successful", "service-unreachable")


def test_a_fetch_goes_on_where_the_last_one_was_cut_off(
    flaky: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(flaky.url) as client:
        with monkeypatch.context() as impatient:
            impatient.setattr(module, "PATIENCE", -1.0)
            for _ in range(2):
                flaky.cuts = {"/jobs/job/results/mask.tif": 1}
                with pytest.raises(ServiceUnreachable):
                    client.fetch("job", tmp_path / "out")
                assert [path.name for path in tmp_path.iterdir()] == [".out-job.partial"]
        client.fetch("job", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "mask.tif").read_bytes() == MASK
    assert flaky.asked("GET", "/jobs/job/results/mask.tif")[-1]["range"] == f"bytes={len(MASK) * 3 // 4}-"


def test_what_an_earlier_try_left_is_checked(flaky: Flaky, tmp_path: Path) -> None:
    left = tmp_path / ".out-job.partial" / "mask.tif"
    for content in (MASK, b"x" * 99, b"x" * len(MASK), b"x" * (len(MASK) + 1), b""):
        left.parent.mkdir()
        left.write_bytes(content)
        with Client(flaky.url) as client:
            files = client.fetch("job", tmp_path / "out")
        assert files[0].read_bytes() == MASK
        files[0].unlink()
        files[0].parent.rmdir()


def test_one_fetches_while_another_may_not(flaky: Flaky, tmp_path: Path) -> None:
    with Client(flaky.url) as client:
        with arriving(tmp_path / "out", "job") as scratch:
            (scratch / "mask.tif").write_bytes(MASK[:99])
            with pytest.raises(OutputExists, match="another process is fetching"):
                client.fetch("job", tmp_path / "out")
            assert (scratch / "mask.tif").read_bytes() == MASK[:99]
            (scratch / "mask.tif").write_bytes(MASK)
        with pytest.raises(OutputExists, match="exists already"):
            client.fetch("job", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_lost_answer_makes_no_second_job_and_costs_no_image(
    flaky: Flaky, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/processes/segment/execution"
    flaky.cuts = {path: 2}
    assert run(["submit", str(image), "--server", flaky.url]) == 0
    keys = [headers["idempotency-key"] for headers in flaky.asked("POST", path)]
    assert len(keys) == 3 and len(set(keys)) == 1
    assert run(["submit", str(image), "--server", flaky.url]) == 0
    assert flaky.asked("POST", path)[-1]["idempotency-key"] != keys[0]


def test_an_image_whose_job_may_be_there_is_not_deleted(
    flaky: Flaky, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    flaky.cuts = {"/processes/segment/execution": 1}
    assert run(["submit", str(image), "--server", flaky.url]) == 1
    assert flaky.asked("DELETE", "/images/image") == []
    assert "no answer from" in capsys.readouterr().err


def test_ctrl_c_names_the_job_and_how_to_go_on(
    flaky: Flaky, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "wait", interrupted)
    flaky.states = ["successful", "running"]
    assert run(["submit", str(image), str(image), "--server", flaky.url, "--wait", "--json"]) == 1
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert (error["code"], error["message"]) == ("interrupted", "interrupted; the service goes on with job job")
    assert "`foveate jobs fetch job`" in printed.err.splitlines()[-1]
    assert "`foveate jobs cancel job`" in printed.err.splitlines()[-1]
    flaky.states = ["successful"]
    assert run(["submit", str(image), "--server", flaky.url, "--wait"]) == 1
    assert capsys.readouterr().err.endswith(
        "error: interrupted; job job has ended\nhint: `foveate jobs fetch job` gets its results\n"
    )


def test_ctrl_c_before_the_job_is_answered_names_the_image(
    flaky: Flaky, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Client.submit

    def interrupted(client: Client, *words: str, **options: object) -> StatusInfo:
        if flaky.asked("POST", "/processes/segment/execution"):
            raise KeyboardInterrupt
        return first(client, *words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "submit", interrupted)
    flaky.states = ["running"]
    assert run(["submit", str(image), str(image), str(image), "--server", flaky.url]) == 1
    message, hint = capsys.readouterr().err.splitlines()[-2:]
    assert "the service has image image, and perhaps a job of it; the service goes on with job job" in message
    assert "`foveate images delete image`" in hint and "`foveate jobs cancel job`" in hint
    assert len(flaky.asked("POST", "/images")) == 2


def test_a_file_in_the_way_is_said_and_the_table_is_printed(
    flaky: Flaky, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert run(["submit", str(image), "--server", flaky.url, "--out", str(out), "--json"]) == 2
    (job,) = json.loads(capsys.readouterr().out)["jobs"]
    assert (job["status"], job["error"]["code"]) == ("successful", "option-invalid")
    assert str(out) in job["error"]["message"]
    assert run(["jobs", "fetch", "job", "--server", flaky.url, "--out", str(out)]) == 2
    assert run(["jobs", "preview", "job", "--server", flaky.url, "--out", str(out)]) == 2
    assert "defect" not in capsys.readouterr().err


def test_the_users_own_disk_has_errors_of_its_own() -> None:
    with pytest.raises(DiskFull, match="/dev/full"), local_errors(Path("/dev/full")):
        Path("/dev/full").write_text("one byte too many")
    with pytest.raises(OptionInvalid, match="/proc/nothing"), local_errors(Path("/proc/nothing")):
        Path("/proc/nothing").touch()


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_name_may_be_any_bytes(flaky: Flaky, tmp_path: Path, more: list[str]) -> None:
    image = tmp_path / os.fsdecode(b"caf\xe9.tif")
    image.write_bytes(b"pixels")
    words = ["-c", "from foveate.cli import main; main()", "submit", str(image), "--server", flaky.url, *more]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=True)
    assert b"caf?.tif" in done.stdout
    assert flaky.names == ["caf?.tif"]


def test_a_key_may_have_any_characters(flaky: Flaky) -> None:
    with Client(flaky.url) as client:
        client.submit("image", idempotency_key="schlüssel")
    (headers,) = flaky.asked("POST", "/processes/segment/execution")
    assert headers["idempotency-key"].encode("latin-1").decode() == "schlüssel"


@pytest.mark.parametrize("secret", ["secret\r", "secret\n", "sec\0ret", "secret ", "secret\x7f"])
def test_a_key_that_no_header_holds_is_refused_and_not_told(
    flaky: Flaky, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["jobs", "list", "--server", flaky.url, "--api-key", secret]) == 2
    said = capsys.readouterr().err
    assert "the API key holds" in said and "sec" not in said
    with Client(flaky.url) as client, pytest.raises(OptionInvalid, match="idempotency_key holds"):
        client.submit("image", idempotency_key=secret)


def test_an_image_that_may_not_be_read_is_named(flaky: Flaky, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Iterator[bytes]:
        raise PermissionError(13, os.strerror(13))
        yield

    monkeypatch.setattr(module, "_read_chunks", refused)
    with Client(flaky.url) as client, pytest.raises(ImageMissing, match=r"a\.tif cannot be read: Permission denied"):
        client.upload(image)


@pytest.mark.parametrize("size", [99, 3 * CHUNK + 1])
def test_an_image_that_changes_while_it_is_sent_is_not_sent(flaky: Flaky, image: Path, size: int) -> None:
    image.write_bytes(bytes(3 * CHUNK))

    def change(_: float) -> None:
        with image.open("r+b") as file:
            file.truncate(size)

    with Client(flaky.url) as client, pytest.raises(UploadInvalid, match="changed while it was sent"):
        client.upload(image, change)
    assert flaky.asked("POST", "/images") == []


@pytest.mark.parametrize("job", ["../images/image", "a/b", "a?b", "a#b", "ä"])
def test_an_id_leads_nowhere_else(flaky: Flaky, job: str) -> None:
    run(["jobs", "cancel", job, "--server", flaky.url])
    ((method, path, _),) = flaky.seen
    assert method == "DELETE" and path.startswith("/jobs/") and "/" not in path.removeprefix("/jobs/")


@pytest.mark.parametrize("job", [".", "..", ""])
def test_a_step_is_no_id(flaky: Flaky, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "cancel", job, "--server", flaky.url]) == 2
    assert run(["images", "delete", job, "--server", flaky.url]) == 2
    assert flaky.seen == []
    assert "is no id" in capsys.readouterr().err


@pytest.mark.timeout(30)
def test_json_of_something_else_is_no_foveate(flaky: Flaky, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for document in ({"hello": 1}, [1], "hello", None, {"images": 1, "jobs": {}, "links": 1, "models": [7]}):
        monkeypatch.setattr(_Flaky, "_document", lambda *_, found=document: found)
        with Client(flaky.url) as client:
            calls = (
                client.images,
                client.jobs,
                client.models,
                lambda client=client: client.job("x"),
                lambda client=client: client.results("x"),
                lambda client=client: client.upload(image),
                lambda client=client: client.model("x"),
                client.alive,
                client.ready,
                lambda client=client: client.submit("x"),
                lambda client=client: client.fetch("x", image.with_name("out")),
            )
            for call in calls:  # none of them waits for what has never been a Foveate
                with pytest.raises(ServiceUnreachable, match="200 by no Foveate"):
                    call()

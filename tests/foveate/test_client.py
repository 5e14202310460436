"""The Python client: whole downloads or none, and the service's errors as they were."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import foveate
from foveate.client import Client
from foveate.errors import ImageMissing, ImageUnsupported, OptionInvalid, OutputExists, ServiceUnreachable, Unexpected
from tests.service.fake_pipeline import MASK
from tests.service.processes import SLIDE


def test_client_is_exported_and_loads_late() -> None:
    assert foveate.Client is Client
    with pytest.raises(AttributeError):
        _ = foveate.Server


def test_upload_reports_and_refuses(client: Client, tmp_path: Path) -> None:
    shares: list[float] = []
    assert client.upload(SLIDE, shares.append).info.name == SLIDE.name
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    with pytest.raises(ImageMissing):
        client.upload(tmp_path / "none.tif")
    text = tmp_path / "text.tif"
    text.write_text("no image")
    with pytest.raises(ImageUnsupported, match=r"text\.tif") as caught:
        client.upload(text)
    assert caught.value.hint


def test_fetch_is_whole_and_checked(client: Client, slide_id: str, tmp_path: Path) -> None:
    job = client.wait(client.submit(slide_id).jobID, every=0.05).jobID
    files = client.fetch(job, tmp_path / "deep" / "out")
    assert (tmp_path / "deep" / "out" / "mask.tif").read_bytes() == MASK
    assert [path.name for path in files] == ["manifest.json", "mask.tif", "statistics.json"]
    with pytest.raises(OutputExists):
        client.fetch(job, tmp_path / "deep" / "out")


def test_nobody_there() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:1"):
        client.images()


class _Liar(http.server.BaseHTTPRequestHandler):
    """Promises a digest that the bytes do not have, or a file outside the directory; elsewhere it is no Foveate."""

    def do_GET(self) -> None:
        name = "../evil" if "escape" in self.path else "mask.tif"
        link = {"href": "http://elsewhere/jobs/x/results/mask.tif", "type": "image/tiff", "title": name}
        links = {"mask": {**link, "length": 3, "sha256": "0" * 64}}
        status, body = 200, json.dumps(links).encode()
        if self.path.endswith("mask.tif"):
            body = b"abc"
        elif self.path.startswith("/jobs?"):
            following = (
                [] if "offset" in self.path else [{"rel": "next", "href": "http://elsewhere/jobs?offset=1&limit=1"}]
            )
            body = json.dumps({"jobs": [], "links": following}).encode()
        elif self.path.startswith("/images"):
            body = b"<html>log in first</html>"
        elif not self.path.endswith("results"):
            status, body = 502, b"<html>bad gateway</html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_DELETE(self) -> None:
        self.send_response(301)
        self.send_header("Location", "https://elsewhere/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def liar() -> Iterator[Client]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Liar) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            yield client
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("job", "words"), [("x", "SHA-256"), ("escape", "evil")])
def test_liar_leaves_nothing_behind(liar: Client, tmp_path: Path, job: str, words: str) -> None:
    with pytest.raises(Unexpected, match=words):
        liar.fetch(job, tmp_path / "out" / "here")
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_pages_are_asked_of_the_service_whatever_the_address_in_its_links(liar: Client) -> None:
    assert liar.jobs() == []


def test_an_option_that_there_is_not_is_named(liar: Client) -> None:
    with pytest.raises(OptionInvalid, match="polcy"):
        liar.submit("x", polcy="mode")


def test_a_page_is_no_stored_image(liar: Client, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"pixels")
    with pytest.raises(ServiceUnreachable, match="200 by no Foveate"):
        liar.upload(tmp_path / "a.tif")


def test_a_redirect_or_a_page_is_no_success(liar: Client) -> None:
    with pytest.raises(ServiceUnreachable, match="301 by no Foveate"):
        liar.delete_image("x")
    with pytest.raises(ServiceUnreachable, match="by no Foveate"):
        liar.images()


def test_answer_of_something_else(liar: Client) -> None:
    with pytest.raises(ServiceUnreachable, match="502 by no Foveate"):
        liar.job("x")

"""Uploads over HTTP: what is taken, what is refused and why, and that nothing is left of a refusal."""

import hashlib
import io
import os
import socket
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync

from foveate.client import Client
from foveate.errors import ImageUnreadable
from foveate.schema import ImageInfo
from jobs.files import RESERVE_BYTES, FileStore
from jobs.valkey import EmbeddedValkey
from service.bodies import Body
from service.intake import Intake
from service.uploads import Limits, free_bytes
from tests.service.full_disk import ROOM
from tests.service.processes import SLIDE, Service, running_api
from tests.shared import DATA


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def unchanged(service: Service) -> Iterator[None]:
    """The test leaves no image and no upload behind."""
    before = left_in(service.data / "images")
    yield
    assert left_in(service.data / "images") == before
    assert left_in(service.data / "incoming") == []


def post(service: Service, body: bytes, name: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{service.url}/images", params={"name": name}, content=body, headers=headers, timeout=60)


def truncated_slide() -> bytes:
    return SLIDE.read_bytes()[:100_000]


BAD: dict[str, tuple[Callable[[], bytes], int, str, str]] = {
    "cut.svs": (truncated_slide, 400, "image-unreadable", "cut.svs"),
    "text.tif": (lambda: b"hello\n" * 100, 415, "image-unsupported", "text.tif"),
    "vrt.tif": ((DATA / "geotiff" / "RGB.byte.gcp.vrt").read_bytes, 415, "image-unsupported", "VRT"),
    "empty.tif": (lambda: b"", 400, "upload-invalid", "empty"),
    "huge.tif": ((DATA / "broken" / "huge-sparse.tiff").read_bytes, 400, "image-limits", "66000"),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_with_its_reason(service: Service, name: str) -> None:
    body, status, code, words = BAD[name]
    response = post(service, body(), name)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert words in problem["detail"]
    assert problem["hint"] and problem["status"] == status
    assert str(service.data) not in response.text
    assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_upload_is_described_and_immutable(service: Service) -> None:
    response = post(service, SLIDE.read_bytes(), "Doe, John.svs")
    image = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"{service.url}/images/{image['id']}"
    assert image["sha256"] == hashlib.sha256(SLIDE.read_bytes()).hexdigest()
    assert (image["info"]["name"], image["info"]["width"], image["info"]["height"]) == ("Doe, John.svs", 2220, 2967)
    assert httpx.get(response.headers["location"]).json() == image
    assert left_in(service.data / "images" / image["id"] / "content") == ["image.svs"]
    assert "Doe" not in service.log.read_text()


def test_same_bytes_twice_are_two_images(client: Client) -> None:
    first, second = client.upload(SLIDE), client.upload(SLIDE)
    assert first.id != second.id
    assert first.sha256 == second.sha256
    client.delete_image(first.id)
    assert client.image(second.id) == second


@pytest.mark.parametrize("plain", ["", "; filename=cafe.svs"])
def test_name_comes_from_content_disposition(service: Service, plain: str) -> None:
    header = f"attachment{plain}; filename*=UTF-8''caf%C3%A9.svs"
    response = httpx.post(
        f"{service.url}/images", content=SLIDE.read_bytes(), headers={"Content-Disposition": header}, timeout=60
    )
    assert response.json()["info"]["name"] == "café.svs"


@pytest.mark.usefixtures("unchanged")
def test_an_index_that_names_files_elsewhere_is_refused(service: Service) -> None:
    index = "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nImageFile=../../../etc/passwd\n"
    index += "MapFile=../../../etc/passwd\n"
    response = httpx.post(f"{service.url}/images?name=a.vms", content=index.encode(), timeout=60)
    assert response.status_code == 400
    assert "outside its own folder" in response.json()["detail"]


def test_form_is_taken_without_its_wrapping(service: Service) -> None:
    files = {"note": (None, "of no interest"), "file": ("../../scan.svs", SLIDE.read_bytes())}
    image = httpx.post(f"{service.url}/images", files=files, timeout=60).json()
    assert image["sha256"] == hashlib.sha256(SLIDE.read_bytes()).hexdigest()
    assert image["info"]["name"] == "scan.svs"


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        ("multipart/form-data", b"x", "no boundary"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--",
            "no file",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name=a; filename="a"\r\n\r\nxx',
            "inside",
        ),
        ("multipart/form-data; boundary=b", b"nonsense", "malformed"),
        ('multipart/form-data; x="' + ";" * 5000, b"x", "more than 4096"),
        ("multipart/form-data; boundary=" + "b" * 257, b"x", "malformed"),
        ("multipart/form-data; boundary*=undefined''abc", b"x", "cannot be decoded"),
    ],
)
def test_bad_form_is_refused(service: Service, content_type: str, body: bytes, words: str) -> None:
    response = httpx.post(f"{service.url}/images", content=body, headers={"Content-Type": content_type})
    assert (response.status_code, response.json()["code"]) == (400, "upload-invalid")
    assert words in response.json()["detail"]


@pytest.mark.usefixtures("unchanged")
def test_aborted_upload_leaves_nothing(service: Service) -> None:
    address = urlsplit(service.url)
    assert address.hostname and address.port
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"POST /images HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 3_000_000)
        wait_until(lambda: left_in(service.data / "incoming") != [])
    wait_until(lambda: left_in(service.data / "incoming") == [])


def test_an_upload_under_way_at_the_end_of_the_server_leaves_nothing(tmp_path: Path, valkey: EmbeddedValkey) -> None:
    with socket.socket() as connection:
        with running_api(tmp_path, valkey.url) as service:
            connection.connect(("127.0.0.1", urlsplit(service.url).port))
            connection.sendall(
                b"POST /images HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 3_000_000
            )
            wait_until(lambda: left_in(service.data / "incoming") != [])
        assert left_in(tmp_path / "incoming") == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_zip_of_one_file_and_of_a_dicom_series(service: Service) -> None:
    one = post(service, zipped({"folder/scan.svs": SLIDE.read_bytes(), "__MACOSX/._scan.svs": b"x"}), "scan.zip").json()
    assert one["info"]["reader"] == "direct"
    series = {f"s/{path.name}": path.read_bytes() for path in sorted((DATA / "slides" / "dicom-boxes").iterdir())}
    response = post(service, zipped(series), "series.zip")
    assert response.status_code == 201, response.text
    names = left_in(service.data / "images" / response.json()["id"] / "content")
    assert names == [f"instance-{number:05}.dcm" for number in range(len(series))]


@pytest.mark.usefixtures("unchanged")
def test_zip_bomb_is_refused(service: Service) -> None:
    response = post(service, zipped({"scan.svs": bytes(50_000_000)}, zipfile.ZIP_DEFLATED), "bomb.zip")
    assert (response.status_code, response.json()["code"]) == (400, "upload-invalid")
    assert "100:1" in response.json()["detail"]


def test_full_disk_refuses_before_and_while_writing(tmp_path: Path, valkey: EmbeddedValkey) -> None:
    with running_api(tmp_path, valkey.url, ("tests.service.full_disk",)) as service:
        for body in (os.urandom(ROOM + 1), (chunk for chunk in [os.urandom(ROOM), os.urandom(2 * ROOM)])):
            response = httpx.post(f"{service.url}/images", content=body)
            assert (response.status_code, response.json()["code"]) == (507, "disk-full")
            assert str(RESERVE_BYTES) in response.json()["detail"]
        # Hexadecimal digits pack to half: the archive fits, and what it holds does not.
        archive = zipped({"scan.svs": os.urandom(80_000).hex().encode()}, zipfile.ZIP_DEFLATED)
        assert (len(archive) < ROOM, post(service, archive, "scan.zip").json()["code"]) == (True, "disk-full")
        assert left_in(tmp_path / "incoming") == left_in(tmp_path / "images") == []
        assert httpx.get(f"{service.url}/healthz").status_code == 200


def test_upload_over_the_limit_is_refused(tmp_path: Path, valkey: EmbeddedValkey) -> None:
    with running_api(tmp_path, valkey.url, FOVEATE_MAX_UPLOAD_GB="0.001") as service:
        for body in (bytes(1_500_000), bytes(5_000_000), (bytes(500_000) for _ in range(3))):
            response = httpx.post(f"{service.url}/images", content=body)
            assert (response.status_code, response.json()["code"]) == (413, "upload-too-large")
            assert "1000000" in response.json()["detail"]
        assert left_in(tmp_path / "incoming") == []


def test_slow_files_keep_nothing_else_waiting(tmp_path: Path) -> None:
    """Whatever many uploads are being looked at, threads are left for other requests."""
    go_on = Event()

    def slow(path: Path, name: str) -> ImageInfo:
        go_on.wait(60)
        raise ImageUnreadable(f"{name} is no image", hint="send another")

    intake = Intake(FileStore(tmp_path), Limits(10**6, 0, free_bytes), slow)

    async def upload() -> None:
        with pytest.raises(ImageUnreadable):
            await intake.take(Body("scan.tif", 1, _one_byte()))

    async def many() -> None:
        async with anyio.create_task_group() as uploads:
            for _ in range(100):
                uploads.start_soon(upload)
            try:
                with anyio.fail_after(30):
                    await anyio.sleep(0.5)
                    await run_sync(lambda: None)
            finally:
                go_on.set()

    anyio.run(many)
    assert left_in(tmp_path / "incoming") == []


async def _one_byte() -> AsyncIterator[bytes]:
    yield b"x"

"""A whole service for tests: real Valkey, a real API process, real worker and engine processes, a fake pipeline."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from foveate.client import Client
from foveate.errors import ServiceUnreachable
from jobs.valkey import EmbeddedValkey
from tests.raster.cards import make_card
from tests.shared import DATA

SLIDE = DATA / "slides" / "CMU-1-Small-Region.svs"
"""0.499 µm, RGB: what the test's one bundle takes."""
SCENE = DATA / "geotiff" / "rgb_deflate.tif"
EXECUTION = "/processes/segment/execution"


@dataclass(frozen=True)
class Service:
    url: str
    data: Path
    log: Path

    def client(self, api_key: str | None = None) -> Client:
        return Client(self.url, api_key)


def write_bundle(directory: Path) -> None:
    """A bundle with a sound card; its weights are never opened here."""
    directory.mkdir(parents=True)
    card = make_card(name=directory.name)
    (directory / "bundle.json").write_text(card.model_dump_json())
    (directory / "weights.safetensors").write_bytes(b"no weights")


@contextmanager
def process(
    words: list[str], environment: Mapping[str, str], log: Path, inherited: tuple[int, ...] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """`python WORDS` for as long as the block lasts, free of the caller's own FOVEATE_* variables."""
    inherited_environment = {name: value for name, value in os.environ.items() if not name.startswith("FOVEATE_")}
    with log.open("ab") as output:
        started = subprocess.Popen(
            [sys.executable, *words],
            env={**inherited_environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=inherited,
            cwd=Path(__file__).parents[2],
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def running_api(
    data: Path, valkey_url: str, module: tuple[str, ...] = ("service", "--fd"), **settings: str
) -> Iterator[Service]:
    log = data / f"api-{len(list(data.glob('api-*')))}.log"
    environment = {
        "FOVEATE_DATA": str(data),
        "FOVEATE_VALKEY_URL": valkey_url,
        "FOVEATE_BUNDLES": str(data / "none"),
        **settings,
    }
    with socket.create_server(("127.0.0.1", 0)) as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        words = ["-m", *module, str(bound.fileno())]
        with process(words, environment, log, (bound.fileno(),)) as api, Client(url) as client:
            _wait(client, api, log)
            yield Service(url, data, log)


def _wait(client: Client, api: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            client._send("GET", "/healthz")
            return
        except ServiceUnreachable:
            assert api.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, valkey: EmbeddedValkey) -> Iterator[Service]:
    """API, worker and engine with the bundle `glands`; shared by all tests, which use their own images and jobs."""
    data = tmp_path_factory.mktemp("service")
    write_bundle(data / "models" / "glands")
    environment = {"FOVEATE_DATA": str(data), "FOVEATE_VALKEY_URL": valkey.url, "FOVEATE_BUNDLES": str(data / "none")}
    with (
        running_api(data, valkey.url) as running,
        process(["-m", "tests.service.fake_worker"], environment, data / "worker.log"),
    ):
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as opened:
        yield opened


@pytest.fixture(scope="session")
def slide_id(service: Service) -> str:
    """An image that the bundle takes."""
    with service.client() as client:
        return client.upload(SLIDE).id


@pytest.fixture(scope="session")
def done(service: Service, slide_id: str) -> str:
    """A successful job."""
    with service.client() as client:
        return client.wait(client.submit(slide_id, overlap=0.5).jobID, every=0.05).jobID


def upload_as(service: Service, name: str) -> str:
    """The id of the slide under a name that tells the fake pipeline what to do."""
    response = httpx.post(f"{service.url}/images", params={"name": name}, content=SLIDE.read_bytes(), timeout=60)
    return str(response.json()["id"])


def execute(service: Service, inputs: dict[str, Any], **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    return httpx.post(service.url + EXECUTION, json={"inputs": inputs, **more}, headers=headers)

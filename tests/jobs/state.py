"""A real Valkey, a real data directory and a bundle: what the tests of jobs, worker and service stand on."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from foveate.schema import SegmentOptions
from jobs.files import FileStore
from jobs.queue import JobQueue
from jobs.records import ImageRecord, JobRequest, new_id
from jobs.store import JobStore
from jobs.valkey import EmbeddedValkey, connect
from tests.raster.cards import make_card, make_info

CARD = make_card(kind="any", spacing=None, policy="fixed:1", foveation=None)

INFO = make_info(name="scene.tif", kind="scene", width=64, height=64)


def write_bundle(directory: Path, name: str = "tiny", **changes: object) -> Path:
    """A bundle that the catalog accepts; its weights are no weights."""
    bundle = directory / name
    bundle.mkdir(parents=True)
    (bundle / "bundle.json").write_text(json.dumps(CARD.model_dump(mode="json") | {"name": name} | changes))
    (bundle / "weights.safetensors").write_bytes(b"weights of " + name.encode())
    return bundle


def add_image(files: FileStore, name: str = "scene.tif") -> ImageRecord:
    """A committed image whose bytes are no image; `name` is free text."""
    staging = files.new_upload()
    (staging / "content" / "image.tif").write_bytes(b"no pixels")
    image = ImageRecord(
        id=new_id(), name=name, sha256=new_id(), bytes=9, created=datetime.now(UTC), entry="image.tif", info=INFO
    )
    files.commit_image(staging, image)
    return image


def request_for(image: ImageRecord | str) -> JobRequest:
    return JobRequest(image if isinstance(image, str) else image.id, "tiny", SegmentOptions(model="tiny"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("state")) as valkey:
        yield valkey


@pytest.fixture
def connection(server: EmbeddedValkey) -> Iterator[Redis]:
    """A client of an empty Valkey."""
    client = connect(server.url)
    client.flushall()
    yield client
    client.connection_pool.disconnect()


@pytest.fixture
def store(connection: Redis) -> JobStore:
    return JobStore(connection)


@pytest.fixture
def queue(connection: Redis) -> JobQueue:
    return JobQueue(connection)


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "data")

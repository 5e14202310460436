"""The key, and the refusal to show images to other machines without one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from foveate.errors import OptionInvalid, Unauthorized
from jobs.valkey import EmbeddedValkey
from service.settings import ServiceSettings
from tests.service.processes import Service, running_api

KEY = "the-kéy-42"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, valkey: EmbeddedValkey) -> Iterator[Service]:
    with running_api(tmp_path_factory.mktemp("locked"), valkey.url, FOVEATE_API_KEY=KEY) as service:
        yield service


@pytest.mark.parametrize("path", ["/", "/jobs", "/images", "/models", "/processes", "/jobs/x/results/mask.tif"])
@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer é"}, {"Authorization": "Basic eA=="}]
)
def test_without_the_key_nothing_is_shown(locked: Service, path: str, headers: dict[str, str]) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    response = httpx.get(locked.url + path, headers=encoded)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


def test_upload_without_the_key_is_refused(locked: Service) -> None:
    assert httpx.post(f"{locked.url}/images", content=b"x" * 5_000_000).status_code == 401
    assert list((locked.data / "incoming").iterdir()) == []


@pytest.mark.parametrize("headers", [{"X-API-Key": KEY.encode()}, {"Authorization": f"Bearer {KEY}".encode()}])
def test_with_the_key_everything_is(locked: Service, headers: dict[str, bytes]) -> None:
    assert httpx.get(f"{locked.url}/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
def test_health_and_description_are_open(locked: Service, path: str) -> None:
    assert httpx.get(locked.url + path).status_code == 200


def test_client_sends_the_key(locked: Service) -> None:
    with locked.client(KEY) as client:
        assert client.images() == []
    with locked.client("wrong") as client, pytest.raises(Unauthorized):
        client.images()


def test_key_is_in_no_log(locked: Service) -> None:
    assert KEY not in locked.log.read_text()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_this_machine_needs_no_key(host: str) -> None:
    settings = ServiceSettings(host=host)
    assert settings.checked() is settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_other_machines_need_a_key_or_an_opt_out(host: str) -> None:
    with pytest.raises(OptionInvalid, match="without asking for a key") as caught:
        ServiceSettings(host=host, api_key="").checked()
    assert "FOVEATE_API_KEY" in caught.value.hint
    ServiceSettings(host=host, api_key="k").checked()
    ServiceSettings(host=host, allow_anonymous=True).checked()


def test_service_does_not_start_open_to_others(tmp_path: Path) -> None:
    environment = {**os.environ, "FOVEATE_HOST": "0.0.0.0", "FOVEATE_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "service"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "FOVEATE_ALLOW_ANONYMOUS=1" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr

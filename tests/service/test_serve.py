"""`foveate serve`: one API process, and how it ends."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foveate.cli import run
from tests.service.processes import process

SERVE = ["-c", "from foveate.cli import main; main()", "serve", "--port", "0"]


def test_ctrl_c_ends_it_and_is_no_error(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with process(SERVE, {"FOVEATE_DATA": str(tmp_path / "data")}, log) as api:
        deadline = time.monotonic() + 60
        while "startup complete" not in log.read_text():
            assert api.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        api.send_signal(signal.SIGINT)
        assert api.wait(30) == 0
    assert "error" not in log.read_text().replace("uvicorn.error", "")


@pytest.mark.parametrize(("host", "port", "words"), [("127.0.0.1", None, "in use"), ("no.such.host.invalid", 1, "")])
def test_an_address_that_cannot_be_had_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    host: str,
    port: int | None,
    words: str,
) -> None:
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path))
    monkeypatch.setenv("FOVEATE_ALLOW_ANONYMOUS", "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = port or taken.getsockname()[1]
        assert run(["serve", "--host", host, "--port", str(number)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith(f"error: {host}:{number} cannot be bound: ") and words in lines[-2]
    assert lines[-1].startswith("hint: choose another with --host and --port")


def test_python_m_service_ends_alike(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = {"FOVEATE_DATA": str(tmp_path), "FOVEATE_PORT": str(taken.getsockname()[1])}
        done = subprocess.run(
            [sys.executable, "-m", "service"], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("hint: ")

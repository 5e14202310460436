"""`foveate up`: one command, one Ctrl-C, nothing left behind."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from foveate.cli import run
from foveate.client import Client
from foveate.commands import up as up_module
from foveate.errors import FoveateError
from foveate.supervisor import Supervisor
from jobs.ballast import SIZE
from tests.service.processes import SLIDE

ROOT = Path(__file__).parents[2]


@contextmanager
def running_up(data: Path, **settings: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The process and the address that it printed; `settings` are variables of its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOVEATE_")} | settings
    words = ["-c", "from foveate.cli import main; main()", "up", "--port", "0", "--data", str(data), "--json"]
    with (data / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        document = ""
        while not document.endswith("}\n"):
            line = process.stdout.readline()
            assert line, (data / "up.log").read_text()
            document += line
        yield process, json.loads(document)["url"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def child(pid: int, word: str) -> psutil.Process | None:
    for process in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):  # it, or the zombie that it left, may vanish while we look
            if word in process.cmdline():
                return process
    return None


def answers(url: str) -> bool:
    try:
        with Client(url) as client:
            client.ready()
    except FoveateError:
        return False
    return True


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 MiB of its own, which only root can have."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("no disk may be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    assert shutil.disk_usage(disk).free < 1 << 20


def test_a_full_disk_is_emptied_through_the_service(small_disk: Path) -> None:
    with running_up(small_disk) as (_, url), Client(url) as client:
        images = [client.upload(SLIDE).id for _ in range(2)]
        ballast = small_disk / "valkey" / "ballast"
        wait_until(lambda: ballast.exists() and ballast.stat().st_size == SIZE)
        for image in images:
            fill(small_disk)
            client.delete_image(image)
        assert client.images() == []
        assert ballast.stat().st_size < SIZE
    assert "is full: remove images and jobs" in (small_disk / "up.log").read_text()


class _Full(http.server.BaseHTTPRequestHandler):
    """An API that lives, on a disk that is full."""

    def do_GET(self) -> None:
        problem = {"code": "disk-full", "detail": "7 bytes are free", "hint": "remove images"}
        body = json.dumps(problem if self.path == "/readyz" else {"status": "ok"}).encode()
        self.send_response(507 if self.path == "/readyz" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def test_an_api_that_can_take_no_work_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Full) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            up_module._wait_until_up(url, Supervisor([], {}, lambda: None, print), lambda: None)
        finally:
            server.shutdown()
            thread.join()
    assert "warning: no work can be taken: 7 bytes are free; remove images" in capsys.readouterr().err


def test_a_hangup_that_is_ignored_stays_so() -> None:
    code = (
        "import signal, threading; from foveate.signals import end_on_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); stopping = threading.Event(); end_on_signals(stopping)\n"
        "signal.raise_signal(signal.SIGHUP); before = stopping.is_set(); signal.raise_signal(signal.SIGTERM)\n"
        "print(before, stopping.wait(20))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_end_leaves_no_process(tmp_path: Path, how: signal.Signals) -> None:
    if signal.getsignal(how) is signal.SIG_IGN:
        pytest.skip("these tests run under nohup, and so would what they start")
    with running_up(tmp_path) as (process, _):
        children = family(process.pid)
        assert len(children) >= 3
        process.send_signal(how)
        code = process.wait(60)
        assert code == (-how if how is signal.SIGKILL else 0)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []


def test_ctrl_c_is_heard_while_valkey_starts(tmp_path: Path) -> None:
    """It may take a minute to read a long log."""
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    code = (
        "import sys, pathlib; from jobs import valkey; from foveate.cli import main\n"
        f"valkey._binary = lambda: pathlib.Path({str(silent)!r}); main()"
    )
    words = [sys.executable, "-c", code, "up", "--port", "0", "--data", str(tmp_path / "data")]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any("sleep" in found.name() for found in family(process.pid)))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said.splitlines()[0]) == (1, "error: interrupted while Valkey started")


def test_a_setting_that_a_role_would_refuse_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FOVEATE_DEVICE", "gpu")
    assert run(["up", "--data", str(tmp_path / "data"), "--port", "0"]) == 2
    assert "FOVEATE_DEVICE='gpu'" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_dead_processes_are_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with running_up(tmp_path) as (process, url):
        with Client(url) as client:
            image = client.upload(SLIDE)
        for word in ("service", "worker"):
            old = child(process.pid, word)
            assert old is not None
            old.kill()
            wait_until(lambda word=word, old=old: child(process.pid, word) not in (None, old))
        valkey = next(found for found in family(process.pid) if "valkey" in found.name())
        valkey.kill()
        wait_until(
            lambda: any(
                found != valkey and found.is_running() and "valkey" in found.name() for found in family(process.pid)
            )
        )
        wait_until(lambda: answers(url))
        with Client(url) as client:
            assert client.image(image.id) == image
            assert client.jobs() == []


def test_second_up_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with running_up(tmp_path):
        words = ["-c", "from foveate.cli import main; main()", "up", "--port", "0", "--data", str(tmp_path)]
        second = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "another Foveate" in second.stderr
    assert second.stderr.strip().splitlines()[-1].startswith("hint: ")


def test_a_signal_may_come_while_the_event_is_being_waited_for_or_set() -> None:
    script = (
        "import signal, threading; from foveate.signals import end_on_signals\n"
        "stopping = threading.Event(); end_on_signals(stopping)\n"
        "with stopping._cond:\n"
        "    signal.raise_signal(signal.SIGTERM); signal.raise_signal(signal.SIGTERM)\n"
        "print(stopping.wait(20))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "True\n"

"""The embedded server: durable, alone in its directory, gone with its parent."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from foveate.errors import Conflict, ServiceUnreachable
from jobs.valkey import EmbeddedValkey, connect, valkey_errors


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether the process ends within so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    for turn in range(3):
        valkey = EmbeddedValkey(tmp_path)
        valkey.start()
        client = connect(valkey.url)
        assert client.dbsize() == turn * 100
        for k in range(100):
            client.set(f"{turn}-{k}", k)
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGKILL)
        client.close()
        valkey.stop()
        assert valkey.pid is None


def test_two_servers_do_not_share_a_directory(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as first:
        before = set(Path("/tmp").glob("foveate-*"))
        with pytest.raises(Conflict, match=str(tmp_path)):
            EmbeddedValkey(tmp_path).start()
        assert set(Path("/tmp").glob("foveate-*")) <= before  # tests beside this one may remove theirs
        assert first.pid is not None
    with EmbeddedValkey(tmp_path):
        pass


def test_a_command_waits_for_a_server_that_comes_back(tmp_path: Path) -> None:
    valkey = EmbeddedValkey(tmp_path)
    valkey.start()
    client = connect(valkey.url)
    client.set("key", "value")
    pid = valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    with ThreadPoolExecutor(1) as beside:
        answer = beside.submit(client.get, "key")
        time.sleep(0.5)
        assert not answer.done()
        valkey.start()
        assert answer.result() == b"value"
    client.close()
    valkey.stop()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_its_parent(tmp_path: Path, end: signal.Signals) -> None:
    code = (
        "import sys, time; from pathlib import Path; from jobs.valkey import EmbeddedValkey\n"
        "valkey = EmbeddedValkey(Path(sys.argv[1])); valkey.start(); print(valkey.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(end)
        parent.wait()
    assert gone(pid)
    with EmbeddedValkey(tmp_path):
        pass


def test_more_callers_than_connections_wait(server: EmbeddedValkey) -> None:
    client = connect(server.url)
    failures: list[Exception] = []

    def poll() -> None:
        try:
            for _ in range(10):
                client.ping()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=poll) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert failures == []


def test_a_server_that_hangs_is_asked_once(tmp_path: Path) -> None:
    """It takes connections, and never answers: as often as it is asked, so often one waits for the whole timeout."""
    callers: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "hung.sock"))
        hung.listen()
        hung.settimeout(0)
        client = connect(f"unix://{tmp_path}/hung.sock", seconds=0.05, hasty=True)
        with pytest.raises(ServiceUnreachable), valkey_errors():
            client.ping()
        with suppress(BlockingIOError):
            while True:
                callers.append(hung.accept()[0])
    client.close()
    for caller in callers:
        caller.close()
    assert len(callers) == 1


def test_no_url_is_an_error_that_hides_the_password() -> None:
    with pytest.raises(ServiceUnreachable) as caught:
        connect("valkey+what://user:secret@host/0")
    assert "secret" not in caught.value.message

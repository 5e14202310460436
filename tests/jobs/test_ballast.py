"""Room for Valkey on a full disk: given up bit by bit, and laid again."""

import os
import signal
import time
from pathlib import Path

import pytest

from foveate.errors import Unexpected
from jobs import valkey as module
from jobs.ballast import SIZE, STEP, Ballast, is_full
from jobs.valkey import EmbeddedValkey, connect

PLENTY = 1 << 40


def test_a_part_is_given_up_for_each_time_that_the_disk_is_full(tmp_path: Path) -> None:
    full, free = [False], [PLENTY]
    path = tmp_path / "ballast"
    ballast = Ballast(path, full=lambda _: full[0], free=lambda _: free[0])
    assert ballast.release() is None
    ballast.lay()
    assert path.stat().st_size == SIZE
    assert ballast.release() is None
    full[0] = True
    assert [ballast.release() for _ in range(SIZE // STEP + 1)] == [STEP] * (SIZE // STEP) + [0]
    free[0] = SIZE
    ballast.lay()
    assert path.stat().st_size == 0, "what little there is, is not ours"
    free[0] = PLENTY
    ballast.lay()
    assert path.stat().st_size == SIZE


def test_a_disk_is_full_where_it_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_full(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: open("/dev/full", "wb"))  # noqa: SIM115, PTH123
    assert is_full(tmp_path)


def kill(server: EmbeddedValkey) -> None:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while server.pid is not None:  # a zombie whose threads are still ending is not waited for
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_valkey_is_started_again_and_says_that_the_disk_is_full(tmp_path: Path) -> None:
    full, said = [False], list[str]()
    path = tmp_path / "valkey" / "ballast"
    with EmbeddedValkey(tmp_path, ballast=Ballast(path, full=lambda _: full[0])) as server:
        url = server.url
        server.tend(said.append)
        assert path.stat().st_size == SIZE
        full[0] = True
        kill(server)
        server.tend(said.append)
        assert server.url == url and connect(url).ping()
        assert path.stat().st_size == SIZE - STEP
        (line,) = said
        assert "is full: remove images and jobs" in line and "starting it again" in line


def test_valkey_that_keeps_dying_is_given_up_unless_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0))
    full = [True]
    path = tmp_path / "ballast"
    with EmbeddedValkey(tmp_path, ballast=Ballast(path, full=lambda _: full[0], free=lambda _: 0)) as server:
        for _ in range(4):
            kill(server)
            server.tend(lambda _: None)
        full[0] = False
        kill(server)
        with pytest.raises(Unexpected, match="5 times right after its start"):
            server.tend(lambda _: None)


def test_valkey_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start takes as long as one may, and yet it is no long life."""
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(module, "_LONG_LIFE_SECONDS", 0.2)
    with EmbeddedValkey(tmp_path) as server:
        kill(server)
        monkeypatch.setattr(module, "_START_SECONDS", 0.3)
        monkeypatch.setattr(module, "_binary", lambda: hung(tmp_path / "hung"))
        server.tend(lambda _: None)
        with pytest.raises(Unexpected, match="3 times right after its start"):
            server.tend(lambda _: None)


def hung(path: Path) -> Path:
    """A program that says nothing."""
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o755)
    return path


def test_a_start_that_fails_is_tried_again_at_the_same_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0))
    said = list[str]()
    with EmbeddedValkey(tmp_path) as server:
        url = server.url
        kill(server)
        with monkeypatch.context() as broken:
            broken.setattr(EmbeddedValkey, "_options", lambda _: ["--no-such-option"])
            server.tend(said.append)
        assert any("did not start" in line for line in said)
        server.tend(said.append)
        assert server.url == url and connect(url).ping()

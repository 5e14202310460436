"""What a watched command and a warm child tell about themselves."""

import os
import sys
from pathlib import Path

import pytest

from bench.processes import Failed, Warm, watched

MEGABYTES = 200


def test_a_command_is_charged_for_the_memory_of_its_children(tmp_path: Path) -> None:
    hold = f"import time; held = bytearray(b'x' * {MEGABYTES * 10**6}); time.sleep(0.6)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    cost = watched([sys.executable, "-c", parent], tmp_path / "log")
    assert cost.peak_bytes > MEGABYTES * 10**6
    assert cost.wall > 0.6


def test_a_command_that_fails_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="too bad"):
        watched([sys.executable, "-c", "import sys; print('first', flush=True); sys.exit('too bad')"], tmp_path / "log")


def test_a_warm_child_stays_and_has_its_own_environment() -> None:
    with Warm(FOVEATE_TRIED="yes") as child:
        first, second = child.call("os:getpid"), child.call("os:getpid")
        assert first == second != os.getpid()
        assert child.call("os:getpgrp") == os.getpgrp()
        assert child.call("os:getenv", "FOVEATE_TRIED") == "yes"
    assert "FOVEATE_TRIED" not in os.environ

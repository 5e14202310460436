"""The Makefile's own promises, tried in an empty directory with stand-ins for Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OLD = """#!/bin/bash
[ "$1" = -c ] || exit 9
exec {python} -c 'import sys; sys.version_info = (3, 10, 4); exec(sys.argv[1])' "$2"
"""
ECHO = """#!/bin/bash
printf '<%s>' "$@"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "bench", tmp_path / "bench")
    return tmp_path


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(python=shutil.which("python3")) if "{python}" in text else text)
    path.chmod(0o755)


def make(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Under `make test-all` a make would take over that one's flags and name its directory.
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    clean = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(["make", *arguments], cwd=place, env=clean, capture_output=True, text=True, check=False)


def test_an_old_python_leaves_nothing_behind(place: Path) -> None:
    script(place / "old", OLD)
    done = make(place, "install", "PYTHON=./old")
    assert done.returncode == 2
    assert "./old is Python 3.10" in done.stderr and "hint: make PYTHON=" in done.stderr
    assert not (place / ".venv").exists()


def test_an_environment_that_could_not_be_made_is_removed(place: Path) -> None:
    script(
        place / "half", '#!/bin/bash\n[ "$1" = -m ] && mkdir -p .venv/bin && touch .venv/bin/python && exit 1\nexit 0\n'
    )
    assert make(place, "install", "PYTHON=./half").returncode == 2
    assert not (place / ".venv").exists()


def test_an_old_environment_is_named(place: Path) -> None:
    script(place / ".venv/bin/python", OLD)
    assert "hint: make clean" in make(place, "install").stderr


def test_a_path_may_hold_quotes_and_blanks(place: Path) -> None:
    script(place / ".venv/bin/python", ECHO)
    (place / ".venv/installed-up").touch()
    assert make(place, "demo", 'IMAGE=../it\'s a "scene".tif').stdout == '<examples/demo.py><../it\'s a "scene".tif>'
    assert make(place, "demo").stdout == "<examples/demo.py>"


def test_a_bench_that_there_is_not_is_refused_before_anything_is_installed(place: Path) -> None:
    done = make(place, "bench", "NAME=nope")
    assert done.returncode == 2
    assert "no bench nope" in done.stderr and "adaptive coverage" in done.stderr
    assert not (place / ".venv").exists()

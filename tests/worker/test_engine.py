"""The engine's child process and the pipe to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foveate.errors import WorkerLost
from foveate.schema import SegmentOptions
from tests.jobs.test_valkey import gone
from worker.engine import Ended, Engine, Message, Progress, Ready
from worker.spec import JobSpec


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine("tests.worker.fake_pipeline:run")
    engine.launch()
    yield engine
    engine.kill()


def make_spec(directory: Path, **script: Any) -> JobSpec:
    canvas = directory / "canvas"
    canvas.mkdir(exist_ok=True)
    script = {"blocks": 5, "log": str(directory / "log")} | script
    return JobSpec(
        job_id="job",
        image=directory / "image.tif",
        image_name=json.dumps(script),
        image_sha256="0" * 64,
        reader="rasterio",
        options=SegmentOptions(),
        model=directory / "bundle",
        out=directory / "out",
        canvas=canvas,
        device="cpu",
        memory_gb=1.0,
    )


def messages(engine: Engine) -> Iterator[Message]:
    """Until the attempt has ended; a test that waits longer than a minute has failed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        message = engine.poll(0.1)
        if message is not None:
            yield message
        if isinstance(message, Ended):
            return
    raise AssertionError("the engine did not end")


def ended(engine: Engine) -> Ended:
    last = list(messages(engine))[-1]
    assert isinstance(last, Ended)
    return last


def test_one_engine_does_many_specs_and_reports(engine: Engine, tmp_path: Path) -> None:
    pid = engine.pid
    assert isinstance(next(messages(engine)), Ready)
    for turn in range(3):
        directory = tmp_path / str(turn)
        directory.mkdir()
        engine.submit(make_spec(directory, seconds=0.1))
        seen = list(messages(engine))
        fractions = [message.fraction for message in seen if isinstance(message, Progress)]
        assert fractions and fractions == sorted(fractions)
        assert seen[-1] == Ended(None)
        assert (directory / "out" / "mask.tif").read_text() == "0,1,2,3,4,"
    assert engine.pid == pid


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        ("SpacingMismatch", "spacing-mismatch", False),
        ("WorkerLost", "worker-lost", True),
        ("Crash", "unexpected", False),
    ],
)
def test_errors_come_back_as_triples_and_the_engine_goes_on(
    engine: Engine, tmp_path: Path, error: str, code: str, retryable: bool
) -> None:
    engine.submit(make_spec(tmp_path, error=error))
    outcome = ended(engine)
    assert outcome.error is not None and outcome.error.hint
    assert (outcome.error.code, outcome.retryable) == (code, retryable)
    assert "the fake" in outcome.error.message
    engine.submit(make_spec(tmp_path))
    assert ended(engine) == Ended(None)


def test_a_stop_order_ends_the_attempt_and_not_the_next(engine: Engine, tmp_path: Path) -> None:
    engine.submit(make_spec(tmp_path, blocks=1000, seconds=0.05))
    assert isinstance(next(messages(engine)), Ready)
    engine.ask_to_stop()
    outcome = ended(engine)
    assert outcome.error is not None and outcome.error.code == "dismissed"
    engine.ask_to_stop()  # comes too late, and must not hit the next attempt
    engine.submit(make_spec(tmp_path))
    assert ended(engine) == Ended(None)


def test_a_killed_engine_is_lost_and_can_be_launched_again(engine: Engine, tmp_path: Path) -> None:
    assert isinstance(next(messages(engine)), Ready)
    assert engine.pid is not None
    engine.submit(make_spec(tmp_path, blocks=1000, seconds=0.05))
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="signal 9 in the middle of its work"):
        list(messages(engine))
    assert not engine.running
    engine.launch()
    engine.submit(make_spec(tmp_path))
    assert ended(engine) == Ended(None)


def test_an_engine_that_cannot_start_says_why() -> None:
    engine = Engine("worker.no_such_package_at_all:run")
    engine.launch()
    with pytest.raises(WorkerLost, match="status 1 before it was ready"):
        ended(engine)
    engine = Engine("no_such_package_at_all:run")
    engine.launch()
    outcome = ended(engine)
    assert outcome.error is not None and outcome.error.code == "engine-missing"
    assert "no_such_package_at_all" in outcome.error.message
    engine.kill()


def test_an_engine_without_its_gpu_does_not_start() -> None:
    engine = Engine("tests.worker.fake_pipeline:run", "cuda:99")
    engine.launch()
    outcome = ended(engine)
    engine.kill()
    assert outcome.error is not None and outcome.error.code == "option-invalid"
    assert "cuda:99" in outcome.error.message and "cpu" in outcome.error.hint


def test_the_engine_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "from worker.engine import Engine, Ready\n"
        "import sys, time; from worker.spec import JobSpec\n"
        "engine = Engine('tests.worker.fake_pipeline:run'); engine.launch()\n"
        "while not isinstance(engine.poll(1), Ready): pass\n"
        "engine.submit(JobSpec.model_validate_json(sys.argv[1])); print(engine.pid, flush=True); time.sleep(60)"
    )
    spec = make_spec(tmp_path, blocks=1000, seconds=0.05, deaf=True).model_dump_json()
    with subprocess.Popen([sys.executable, "-c", code, spec], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500"
        parent.kill()
    assert gone(pid, 3)


def test_the_parent_loads_nothing_heavy() -> None:
    code = "import sys, worker.process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "numpy", "rasterio", "openslide", "PIL", "fastapi"}.isdisjoint(loaded)

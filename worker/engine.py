"""The long-lived child that does the work and keeps its bundle warm, and the parent's handle on it.

The parent never imports torch, so that it can watch, stop and replace a child that hangs, was killed for its memory or
lost its device. One pipe joins them, JSON in both directions: specs and stop orders down, progress and outcomes up.
The child is `python -m worker.engine FD PARENT PIPELINE DEVICE`, in a session of its own.
"""

import contextlib
import json
import logging
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError, MemoryTooSmall, Unexpected, WorkerLost, disk_errors
from foveate.resolve import resolve
from jobs.lifeline import die_with_parent
from jobs.records import ErrorTriple
from worker.spec import JobSpec

__all__ = ["PIPELINE", "Ended", "Engine", "Pipeline", "Progress", "Ready"]

PIPELINE = "worker.pipeline:run"
_CHOOSE_DEVICE = "model.device:choose_device"
_STAND_BY = "raster.regions:stand_by"
Pipeline = Callable[[JobSpec, Callable[[str, float], None], Callable[[], bool]], object]
"""run(spec, report(stage, fraction), dismissed()): fills spec.out, or raises; asks `dismissed` between batches."""

_REPORT_SECONDS = 0.2
_EXIT_SECONDS = 5.0
"""How long an engine may take to end after it has closed its pipe."""


@dataclass(frozen=True)
class Ready:
    """The engine has imported all it needs and waits for a spec."""


@dataclass(frozen=True)
class Progress:
    """`fraction` (0..1) of the whole job is done."""

    stage: str
    fraction: float


@dataclass(frozen=True)
class Ended:
    """The attempt is over: well, or with an error that another attempt may (`retryable`) or may not mend."""

    error: ErrorTriple | None
    retryable: bool = False


Message = Ready | Progress | Ended


class Engine:
    """The handle. Used from one thread, which must live as long as the engine: its end would kill the child."""

    def __init__(self, pipeline: str = PIPELINE, device: str = "auto") -> None:
        """`device`: a GPU that is named here must be there, or the engine does not start."""
        self._pipeline, self._device = pipeline, device
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._ready = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def launch(self) -> None:
        """Start the child, in place of one that has died; it says Ready when it is."""
        self.kill()
        self._ready = False
        ours, theirs = Pipe()
        with theirs:
            words = [str(theirs.fileno()), str(os.getpid()), self._pipeline, self._device]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker.engine", *words],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Torch's threads would spin while they wait, on cores that the reading threads need.
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                start_new_session=True,  # Ctrl-C is for the parent; and `kill` can end the whole family
            )
        self._pipe = ours

    def submit(self, spec: JobSpec) -> None:
        """Begin an attempt. WorkerLost if the engine is dead."""
        self._send({"spec": spec.model_dump(mode="json")})

    def ask_to_stop(self) -> None:
        """Ask for the end of the attempt in hand; the engine answers Ended all the same."""
        self._send({"stop": True})

    def poll(self, timeout_seconds: float) -> Message | None:
        """The next message, waiting for it so long; None: nothing yet. WorkerLost if the engine is dead."""
        assert self._pipe is not None, "launch first"
        try:
            if self._pipe.poll(timeout_seconds):
                message = _decoded(self._pipe.recv_bytes())
                self._ready = self._ready or isinstance(message, Ready)
                return message
        except (EOFError, OSError):
            raise self._lost() from None
        if self._process is None or self._process.poll() is not None:
            raise self._lost()
        return None

    def kill(self) -> None:
        """End the engine and whatever it started, at once; may be called twice."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _send(self, order: dict[str, Any]) -> None:
        assert self._pipe is not None, "launch first"
        try:
            self._pipe.send_bytes(json.dumps(order).encode())
        except OSError:
            raise self._lost() from None

    def _lost(self) -> WorkerLost:
        code: int | None = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(_EXIT_SECONDS)
        self.kill()
        when = "in the middle of its work" if self._ready else "before it was ready"
        if code is not None and code < 0:
            how = f"was killed by signal {-code}"
            hint = "signal 9 often means too little memory: lower FOVEATE_MEMORY_GB, or see the worker's log"
        else:
            how, hint = f"ended with status {code}", "see the worker's log"
        return WorkerLost(f"the engine {how} {when}", hint=hint)


def _decoded(message: bytes) -> Message:
    match json.loads(message):
        case {"stage": stage, "fraction": fraction}:
            return Progress(stage, fraction)
        case {"error": error, "retryable": retryable}:
            return Ended(None if error is None else ErrorTriple(**error), retryable)
    return Ready()


# --- the child ------------------------------------------------------------------------------------------


class _Orders:
    """Reads the pipe in a thread: a stop order arrives while the engine works, and the end of the pipe ends it."""

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe = pipe
        self._specs: queue.SimpleQueue[JobSpec] = queue.SimpleQueue()
        self._stop = threading.Event()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def next_spec(self) -> JobSpec:
        return self._specs.get()

    def dismissed(self) -> bool:
        return self._stop.is_set()

    def _read(self) -> None:
        while True:
            try:
                order = json.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(1)  # the parent is gone, and nobody wants the work any more
            if "spec" in order:
                self._stop.clear()
                self._specs.put(JobSpec.model_validate(order["spec"]))
            else:
                self._stop.set()


class _Answers:
    """Writes messages to the pipe, progress a few times a second at most; from any thread."""

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._stage = ""
        self._next = 0.0

    def report(self, stage: str, fraction: float) -> None:
        with self._lock:
            if stage == self._stage and time.monotonic() < self._next:
                return
            self._stage = stage
            self._next = time.monotonic() + _REPORT_SECONDS
            self._write(Progress(stage, fraction))

    def send(self, message: Message) -> None:
        with self._lock:
            self._write(message)

    def _write(self, message: Message) -> None:
        self._pipe.send_bytes(json.dumps(asdict(message)).encode())


def _attempt(run: Pipeline, spec: JobSpec, answers: _Answers, orders: _Orders) -> Ended:
    try:
        with disk_errors(spec.out):
            run(spec, answers.report, orders.dismissed)
    except FoveateError as error:
        return Ended(ErrorTriple.of(error), error.retryable)
    except MemoryError as error:
        short = MemoryTooSmall(f"out of memory: {error}", hint="give the worker more memory, or choose smaller blocks")
        return Ended(ErrorTriple.of(short))
    except Exception as error:
        logging.exception("event=attempt-crashed job=%s", spec.job_id)
        crash = Unexpected(
            f"{type(error).__name__}: {error}", hint="this is a defect of Foveate; the worker's log has the traceback"
        )
        return Ended(ErrorTriple.of(crash))
    return Ended(None)


def _restrict() -> None:
    """No core files of gigabytes; and if memory runs out, the kernel takes the engine, not the worker or Valkey."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def main(fd: int, parent: int, pipeline: str, device: str) -> None:
    """Serve specs until the parent is gone."""
    die_with_parent(parent)
    _restrict()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s engine %(message)s")
    pipe: Connection[Any, Any] = Connection(fd)
    orders, answers = _Orders(pipe), _Answers(pipe)
    try:
        run: Pipeline = resolve(pipeline)
        if device.startswith("cuda"):
            resolve(_CHOOSE_DEVICE)(device)  # refused now, rather than in every job
    except FoveateError as error:
        answers.send(Ended(ErrorTriple.of(error)))
        return
    answers.send(Ready())
    stand_by: Callable[[], None] = resolve(_STAND_BY)
    while True:
        stand_by()  # while there is nothing else to do
        spec = orders.next_spec()
        answers.send(_attempt(run, spec, answers, orders))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])

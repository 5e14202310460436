"""Keeps the processes of `foveate up` alive, and ends them in order. None of them outlives us."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from foveate.errors import Unexpected

_TICK_SECONDS = 0.2
_LONG_LIFE_SECONDS = 30.0
"""A process that lived so long is restarted at once, however often."""
_PAUSES = (0.0, 1.0, 2.0, 5.0, 15.0)
"""Seconds before the first, second… restart of a process that keeps dying early."""

__all__ = ["Role", "Supervisor"]


@dataclass
class Role:
    """One process to keep alive; changes with every restart."""

    name: str
    arguments: Sequence[str]
    """Of the Python interpreter."""
    stage: int
    """Roles of a higher stage end earlier."""
    inherited: tuple[int, ...] = ()
    """File descriptors that it keeps."""
    stop_seconds: float = 20.0
    """Time between asking it to end and killing it."""
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    early_deaths: int = 0
    restart_at: float = 0.0


@dataclass(frozen=True)
class Supervisor:
    """Runs `roles` until told to stop, and stops them stage by stage.

    `bind_to_parent` is called in each child before it becomes its program. Everything happens on the main thread: the
    kernel counts a child's parent as dead when the *thread* that forked it ends.
    """

    roles: Sequence[Role]
    environment: Mapping[str, str]
    bind_to_parent: Callable[[], None]
    say: Callable[[str], None]
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        for role in self.roles:
            self._spawn(role)

    def watch(self, also: Callable[[], None] = lambda: None) -> None:
        """Restarts what dies until `stopping` is set; `also` is called at every turn."""
        while not self.stopping.wait(_TICK_SECONDS):
            self.tend()
            also()

    def tend(self) -> None:
        """One look at every role; Unexpected if one can not be kept alive."""
        for role in self.roles:
            if role.process is not None and role.process.poll() is not None:
                self._bury(role, role.process.returncode)
            if role.process is None and time.monotonic() >= role.restart_at:
                self._spawn(role)

    def stop(self) -> None:
        """Asks for the end, waits, then kills; the highest stage first, those of one stage together."""
        for stage in sorted({role.stage for role in self.roles}, reverse=True):
            members = [role for role in self.roles if role.stage == stage]
            for role in members:
                if role.process is not None:
                    role.process.terminate()
            for role in members:
                self._await_end(role)

    def _await_end(self, role: Role) -> None:
        if role.process is None:
            return
        try:
            role.process.wait(role.stop_seconds)
        except subprocess.TimeoutExpired:
            self.say(f"{role.name} did not end within {role.stop_seconds:g} s: killed")
            role.process.kill()
            role.process.wait()
        role.process = None

    def _spawn(self, role: Role) -> None:
        role.started = time.monotonic()
        role.process = subprocess.Popen(
            [sys.executable, *role.arguments],
            env=dict(self.environment),
            pass_fds=role.inherited,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,  # Ctrl-C is for us, who end them in order
            preexec_fn=self.bind_to_parent,  # noqa: PLW1509
        )

    def _bury(self, role: Role, code: int) -> None:
        role.process = None
        early = time.monotonic() - role.started < _LONG_LIFE_SECONDS
        role.early_deaths = role.early_deaths + 1 if early else 0
        if role.early_deaths > len(_PAUSES):
            raise Unexpected(
                f"{role.name} ended {role.early_deaths} times right after its start ({_ending(code)})",
                hint="its own lines above say why; `foveate serve` and `foveate worker` run one role alone",
            )
        pause = _PAUSES[max(0, role.early_deaths - 1)]
        role.restart_at = time.monotonic() + pause
        self.say(f"{role.name} ended ({_ending(code)}); starting it again" + (f" in {pause:g} s" if pause else ""))


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"

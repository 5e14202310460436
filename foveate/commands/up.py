"""`foveate up`: Valkey, the API and workers on this machine, in one command that one Ctrl-C ends."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from foveate.client import Client
from foveate.errors import FoveateError, OptionInvalid, Unexpected
from foveate.output import JsonFlag, print_result
from foveate.resolve import resolve
from foveate.signals import end_on_signals
from foveate.supervisor import Role, Supervisor

_HOST = "127.0.0.1"
_START_SECONDS = 60.0


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Worker processes.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", envvar="FOVEATE_DATA", help="Where images and results lie.", show_envvar=True),
    ] = None,
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0: any free port.")] = 8000,
    as_json: JsonFlag = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C. Prints its address when it is ready."""
    # What a role would refuse at its start, again and again, is said before there is any.
    settings = [
        resolve("jobs.settings:read_settings")(resolve(role))
        for role in ("service.settings:ServiceSettings", "worker.settings:WorkerSettings")
    ]
    place = (data or settings[0].data).expanduser().resolve()
    stopping = threading.Event()
    end_on_signals(stopping)
    with (
        closing(_listening(port)) as bound,
        resolve("jobs.valkey:EmbeddedValkey")(place, stopping=stopping.is_set) as valkey,
    ):
        url = f"http://{_HOST}:{bound.getsockname()[1]}"
        supervisor = _supervisor(bound, workers, place, valkey.url, stopping)
        keep_valkey = partial(valkey.tend, _say)

        with _running(supervisor):
            _wait_until_up(url, supervisor, keep_valkey)
            if not stopping.is_set():
                ready = {"url": url, "data": str(place), "workers": workers, "pid": os.getpid()}
                print_result(ready, f"Foveate is ready at {url} (described at {url}/docs; Ctrl-C ends it)", as_json)
            supervisor.watch(keep_valkey)
            _say("ending: workers, then the API, then Valkey")
    _say("ended")


def _supervisor(
    bound: socket.socket, workers: int, data: Path, valkey_url: str, stopping: threading.Event
) -> Supervisor:
    die_with_parent = resolve("jobs.lifeline:die_with_parent")
    ourselves = os.getpid()
    # The socket is ours: while the API starts again, clients wait instead of being refused.
    api = Role("the API", ("-m", "service", "--fd", str(bound.fileno())), stage=0, inherited=(bound.fileno(),))
    crew = [Role(f"worker {number + 1}", ("-m", "worker"), stage=1) for number in range(workers)]
    environment = {
        **os.environ,
        "FOVEATE_DATA": str(data),
        "FOVEATE_VALKEY_URL": valkey_url,
        "FOVEATE_HOST": _HOST,
        "FOVEATE_PORT": str(bound.getsockname()[1]),
    }
    return Supervisor([api, *crew], environment, lambda: die_with_parent(ourselves), _say, stopping)


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((_HOST, port), backlog=128)
    except OSError as error:
        raise OptionInvalid(
            f"port {port} cannot be bound: {error.strerror}", hint="choose another with --port; 0 takes any free one"
        ) from error


@contextmanager
def _running(supervisor: Supervisor) -> Iterator[None]:
    try:
        supervisor.start()
        yield
    finally:
        supervisor.stop()


def _wait_until_up(url: str, supervisor: Supervisor, also: Callable[[], None]) -> None:
    """Returns when the API answers; what keeps it from taking work by then is a warning, for it may be mended through
    the API alone: a full disk, say."""
    deadline = time.monotonic() + _START_SECONDS
    with Client(url, timeout=5.0) as client:
        while not supervisor.stopping.wait(0.1):
            supervisor.tend()
            also()
            try:
                client.alive()
            except FoveateError as error:
                if time.monotonic() > deadline:
                    message = f"the API did not answer within {_START_SECONDS:g} s: {error.message}"
                    raise Unexpected(message, hint=error.hint) from error
                continue
            try:
                client.ready()
            except FoveateError as error:
                _say(f"warning: no work can be taken: {error.message}; {error.hint}")
            return


def _say(line: str) -> None:
    typer.echo(f"foveate up: {line}", err=True)

"""`python -m service [--fd N]`: the API process. `foveate serve` runs it, and `foveate up` hands it a bound socket."""

import argparse
import logging
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import uvicorn

from foveate.errors import FoveateError, OptionInvalid
from jobs.settings import read_settings
from service.app import create_app
from service.settings import ServiceSettings

_SHUTDOWN_SECONDS = 5
_BACKLOG = 2048


class _WithoutQuery(logging.Filter):
    """Keeps file names, which may be those of patients, out of the access log: they come in the query."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments: Any = record.args
        if isinstance(arguments, tuple) and len(arguments) == 5:
            client, method, path, version, status = arguments
            record.args = (client, method, str(path).partition("?")[0], version, status)
        return True


def serve(settings: ServiceSettings, bound: socket.socket | None = None) -> None:
    """Serves until SIGINT or SIGTERM, on `bound` if it is given, else on the settings' address.

    OptionInvalid where that cannot be had.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    config = uvicorn.Config(
        create_app(settings.checked()),
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    logging.getLogger("uvicorn.access").addFilter(_WithoutQuery())
    with suppress(KeyboardInterrupt), bound or _listening(settings.host, settings.port) as listening:
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    # uvicorn would end the process with a line of its own where the address is taken.
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        families = {family for family, *_ in found}
        family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise OptionInvalid(
            f"{host}:{port} cannot be bound: {error.strerror}",
            hint="choose another with --host and --port, or FOVEATE_HOST and FOVEATE_PORT; port 0 is any free one",
        ) from error


def run(host: str | None = None, port: int | None = None, fd: int | None = None) -> None:
    """Serves with the settings of the environment; `host` and `port` win over it, `fd` over both."""
    settings = read_settings(ServiceSettings)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    serve(settings.model_copy(update=given), None if fd is None else socket.socket(fileno=fd))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    parser.add_argument("--fd", type=int, help="a listening socket that this process inherited")
    try:
        run(fd=parser.parse_args(arguments).fd)
    except FoveateError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

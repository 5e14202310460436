"""`foveate serve` and `foveate worker`: one role each, set up by FOVEATE_* variables."""

from typing import Annotated

import typer

from foveate.resolve import resolve


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(worker)


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Address to bind; default FOVEATE_HOST, else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Default FOVEATE_PORT, else 8000.", min=0, max=65535)
    ] = None,
) -> None:
    """Run the API alone. Valkey is at FOVEATE_VALKEY_URL."""
    resolve("service.__main__:run")(host, port)


def worker() -> None:
    """Run one worker alone. Valkey is at FOVEATE_VALKEY_URL, the data in FOVEATE_DATA."""
    raise typer.Exit(resolve("worker.__main__:main")())

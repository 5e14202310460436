"""`foveate`: mounts the commands, and turns every error into a message, a hint and an exit code.

Exit codes: 0 done, 1 the work failed, 2 bad input or usage. Results go to stdout, progress and errors to stderr.
"""

import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence

import typer

from foveate import __version__
from foveate.errors import FoveateError, Interrupted, Unexpected

COMMANDS = ("segment", "info", "up", "serve", "submit", "jobs", "images", "models", "train", "evaluate")
"""Modules of `foveate.commands`, in the order of the help text; each has `register(app)`."""

# typer carries its own copy of click in new versions and imports click in old ones; this finds the right root.
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]

_INTERRUPTED = 130
"""What new versions of typer return after Ctrl-C, in place of an exception."""

__all__ = ["COMMANDS", "build_app", "main", "run"]


def build_app() -> typer.Typer:
    app = typer.Typer(
        name="foveate",
        help="Foveated segmentation of images too large for any screen: slides and satellite scenes.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(invoke_without_command=True)
    def _root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
        if version:
            typer.echo(f"foveate {__version__}")
            raise typer.Exit

    for name in COMMANDS:
        importlib.import_module(f"foveate.commands.{name}").register(app)
    return app


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; never raises for anything a user can cause."""
    as_json = "--json" in arguments
    try:
        outcome = build_app()(args=list(arguments), prog_name="foveate", standalone_mode=False)
        if outcome == _INTERRUPTED:
            raise KeyboardInterrupt
        return outcome if isinstance(outcome, int) else 0
    except FoveateError as error:
        return _complain(error.code, error.message, error.hint, error.exit_code, as_json)
    except _ClickException as error:
        return _usage_error(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        hint = "run the same command again to go on"
        return _complain(Interrupted.code, "interrupted", hint, Interrupted.exit_code, as_json)
    except BrokenPipeError:
        # The reader of our stdout has left (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        logging.getLogger("foveate").debug("unexpected error", exc_info=True)
        message = f"unexpected {type(error).__name__}: {error}"
        hint = "this is a defect of Foveate: report it with the output of FOVEATE_DEBUG=1"
        return _complain(Unexpected.code, message, hint, Unexpected.exit_code, as_json)


def _usage_error(error: Exception, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "foveate"
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(str(error), err=True)
        return 2
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return _complain("usage", message, f"run `{command} --help` for the options", 2, as_json)


def _complain(code: str, message: str, hint: str, exit_code: int, as_json: bool) -> int:
    if as_json:
        typer.echo(json.dumps({"error": {"code": code, "message": message, "hint": hint}}, indent=2))
    typer.echo(f"error: {message}", err=True)
    typer.echo(f"hint: {hint}", err=True)
    return exit_code


def main() -> None:
    if os.environ.get("FOVEATE_DEBUG"):
        logging.basicConfig(level=logging.DEBUG)
    sys.exit(run(sys.argv[1:]))

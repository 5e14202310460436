"""What a command prints: one result on stdout, as text for people or as one JSON document for programs."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from foveate.errors import FoveateError
from foveate.schema import StatusInfo

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
"""The type of every command's `as_json` parameter."""

_NARROWEST = 8
"""Characters that a cut column keeps."""

__all__ = ["JsonFlag", "error_document", "print_error", "print_result", "print_table", "print_warnings"]


def print_result(document: Any, text: str, as_json: bool) -> None:
    """`document` (models, dicts, lists) as JSON, or `text`; an empty text prints nothing."""
    if as_json:
        text = json.dumps(_plain(document), indent=2, ensure_ascii=False)
    if text:
        # Names of files may be any bytes; those that are no UTF-8 are printed as question marks.
        typer.echo(text.encode("utf-8", "replace").decode())


def print_table(
    document: Any,
    header: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    as_json: bool,
    *,
    elastic: tuple[str, ...] = (),
) -> None:
    """`rows` under `header` in aligned columns, or `document` as JSON.

    On a terminal that is too narrow the columns called `elastic` are cut, the widest first; a pipe has no width.
    """
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    if sys.stdout.isatty():
        columns = [header.index(name) for name in elastic]
        _narrow(widths, columns, shutil.get_terminal_size().columns)
    lines = ["  ".join(map(_cell, row, widths)) for row in [header, *rows]]
    print_result(document, "\n".join(line.rstrip() for line in lines), as_json)


def _narrow(widths: list[int], columns: Sequence[int], room: int) -> None:
    """Takes from those `widths` that stand at `columns` until a line has `room`, or they are too narrow to be read."""
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    while excess > 0 and columns and max(widths[column] for column in columns) > _NARROWEST:
        widths[max(columns, key=lambda column: widths[column])] -= 1
        excess -= 1


def _cell(text: str, width: int) -> str:
    """`text` in `width` characters: a sentence is cut at its end, a name in the middle, for names differ at theirs."""
    if len(text) <= width:
        return text.ljust(width)
    tail = 0 if " " in text else (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def error_document(error: FoveateError) -> dict[str, str]:
    """What the key `error` of a JSON document holds."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


def print_error(error: FoveateError, about: str = "") -> None:
    """Two lines on stderr: what is wrong, with whatever it is `about` before it, and what to do."""
    typer.echo(f"error: {about}{': ' if about else ''}{error.message}\nhint: {error.hint}", err=True)


def print_warnings(results: Path) -> None:
    """What the manifest in the directory `results` warns of, on stderr; nothing where there is no manifest."""
    try:
        manifest = json.loads((results / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return
    for warning in manifest.get("warnings", []):
        typer.echo(f"warning: {warning}", err=True)


def _plain(document: Any) -> Any:
    if isinstance(document, BaseModel):
        return document.model_dump(mode="json", exclude_none=isinstance(document, StatusInfo))
    if isinstance(document, dict):
        return {key: _plain(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_plain(value) for value in document]
    return document

"""The body of an upload as one stream of bytes, whether it came raw or as the file of a multipart form."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email.message import Message
from email.utils import collapse_rfc2231_value
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from foveate.errors import UploadInvalid

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_FIELDS_LIMIT = 64 << 10
"""Bytes of a form's headers and other fields."""
_LONGEST_HEADER = 4096

__all__ = ["Body", "open_body"]


@dataclass(frozen=True)
class Body:
    """`name`: what the sender calls the file, for display alone. `declared`: bytes announced, if any.

    For a form `declared` counts its headers too: an upper bound.
    """

    name: str
    declared: int | None
    stream: AsyncIterator[bytes]


async def open_body(request: Request, name: str | None) -> Body:
    """The upload in `request`; `name` (the query's) wins over the headers'. Raises UploadInvalid."""
    declared = _content_length(request)
    content_type = _parameters(request.headers.get("content-type", ""))
    if content_type.get_content_type() != "multipart/form-data":
        disposition = _parameters(request.headers.get("content-disposition", ""))
        return Body(_display_name(name or _filename(disposition)), declared, request.stream())
    boundary = _decoded(content_type.get_boundary)
    if boundary is None:
        raise _form_error("the multipart form has no boundary")
    part = _FilePart()
    chunks = _file_of_form(request.stream(), boundary.encode("latin-1", "replace"), part)
    first = await anext(chunks, None)
    if first is None and part.filename is None:
        raise _form_error("the form holds no file")
    return Body(_display_name(name or part.filename), declared, _with_first(first, chunks))


@dataclass
class _FilePart:
    """What the parser has seen so far; changes while the form streams through it."""

    filename: str | None = None
    in_file: bool = False
    done: bool = False
    header: bytes = b""
    disposition: bytes = b""
    overhead: int = 0
    pending: list[bytes] = field(default_factory=list)


async def _file_of_form(stream: AsyncIterator[bytes], boundary: bytes, part: _FilePart) -> AsyncIterator[bytes]:
    """The bytes of the form's only file, as they come: nothing is spooled."""
    try:
        parser = MultipartParser(boundary, _callbacks(part))
        async for chunk in stream:
            parser.write(chunk)
            for piece in part.pending:
                yield piece
            part.pending.clear()
    except FormParserError as error:
        raise _form_error(f"the form is malformed: {error}") from error
    if part.filename is not None and not part.done:
        raise _form_error("the form ends inside its file")


def _callbacks(part: _FilePart) -> "MultipartCallbacks":
    def spend(count: int) -> None:
        part.overhead += count
        if part.overhead > _FIELDS_LIMIT:
            raise _form_error(f"the form has more than {_FIELDS_LIMIT} bytes beside its file")

    def on_part_begin() -> None:
        part.header = part.disposition = b""

    def on_header_field(data: bytes, start: int, end: int) -> None:
        spend(end - start)
        part.header += data[start:end]

    def on_header_value(data: bytes, start: int, end: int) -> None:
        spend(end - start)
        if part.header.lower() == b"content-disposition":
            part.disposition += data[start:end]

    def on_header_end() -> None:
        part.header = b""

    def on_headers_finished() -> None:
        filename = _filename(_parameters(part.disposition.decode("utf-8", "replace")))
        if filename is None:
            return
        if part.filename is not None:
            raise _form_error("the form holds several files")
        part.filename, part.in_file = filename, True

    def on_part_data(data: bytes, start: int, end: int) -> None:
        if part.in_file:
            part.pending.append(data[start:end])
        else:
            spend(end - start)

    def on_part_end() -> None:
        part.done = part.done or part.in_file
        part.in_file = False

    return {
        "on_part_begin": on_part_begin,
        "on_header_field": on_header_field,
        "on_header_value": on_header_value,
        "on_header_end": on_header_end,
        "on_headers_finished": on_headers_finished,
        "on_part_data": on_part_data,
        "on_part_end": on_part_end,
    }


async def _with_first(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
    async for chunk in rest:
        yield chunk


def _form_error(message: str) -> UploadInvalid:
    return UploadInvalid(
        message, hint="send one file, raw (`curl --data-binary @FILE`) or as a form (`curl -F file=@FILE`)"
    )


def _content_length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else None


def _parameters(header: str) -> Message:
    """A structured header; Message decodes RFC 2231 names such as filename*=UTF-8''…"""
    if len(header) > _LONGEST_HEADER:  # Message takes seconds for what is long and odd
        raise _form_error(f"a header has more than {_LONGEST_HEADER} characters")
    message = Message()
    kind = "Content-Type" if "/" in header.partition(";")[0] else "Content-Disposition"
    message[kind] = header.replace("\r", " ").replace("\n", " ")
    return message


def _filename(header: Message) -> str | None:
    """RFC 6266, 4.3: `filename*` wins over `filename`, which is for those that do not know the other."""

    def chosen() -> str | None:
        parameters: list[tuple[str, Any]] = header.get_params([], "content-disposition")
        found = [value for name, value in parameters if name == "filename"]
        extended = [value for value in found if isinstance(value, tuple)]
        return collapse_rfc2231_value((extended or found)[0]) if found else None

    return _decoded(chosen)


def _decoded(parameter: Callable[[], str | None]) -> str | None:
    """What a header says; in a character set that there is."""
    try:
        return parameter()
    except (LookupError, ValueError) as error:
        raise _form_error(f"a header cannot be decoded: {error}") from error


def _display_name(name: str | None) -> str:
    """The last component, printable, at most 200 characters; a PureWindowsPath splits at both kinds of slash."""
    last = PureWindowsPath(name or "").name
    return "".join(character for character in last if character.isprintable())[:200] or "image"

"""One file as an answer: with ranges, and a strong ETag that makes parts and copies of it safe to use."""

import re
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from foveate.errors import ResultGone
from service.methods import wants_head_alone
from service.outputs import media_type

__all__ = ["DOWNLOAD", "download", "gone"]

_LONGEST_RANGE = 4000
"""Characters of a Range that is read: its numbers have fewer digits than Python refuses to convert."""
_RANGE = re.compile(r"([0-9]*)-([0-9]*)")

DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file; `Range` and `If-Range` are honoured",
        "content": {media_type("mask.tif"): {"example": "the bytes"}},
    },
    206: {"description": "The bytes that `Range` asked for"},
    304: {"description": "`If-None-Match` holds the file's ETag"},
    416: {"description": "`Range` asks for bytes beyond the file's end; `Content-Range` has its length"},
}
"""What `download` may answer, for the OpenAPI description."""


def download(path: Path, sha256: str, if_none_match: str | None) -> Response:
    """`path` with the digest of its bytes as its tag; 304 where the client has them already."""
    # The digest: the same file has the same tag from every service, and ranges of it may be joined.
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, max-age=0", "X-Content-Type-Options": "nosniff"}
    if if_none_match is not None and _matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return _File(path, headers=headers, media_type=media_type(path.name), filename=path.name)


class _File(FileResponse):
    """Starlette's, but for two things: `_ranges` reads Range (RFC 9110, 14.2), where Starlette refuses much that is to
    be ignored; and a file that has vanished since it was asked for is a problem, not a crash."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            found = Path(self.path).stat()
        except FileNotFoundError as error:
            raise gone(str(self.filename)) from error
        self.stat_result = found
        self.set_stat_headers(found)
        others = [(name, value) for name, value in scope["headers"] if name != b"range"]
        head = wants_head_alone(scope)  # it asks for what GET says of the whole: ranges are for GET alone
        ranges = None if head else self._wanted(Headers(scope=scope), found.st_size)
        if ranges == []:
            raise HTTPException(
                416, f"no byte of its {found.st_size} is asked for", {"Content-Range": f"bytes */{found.st_size}"}
            )
        if ranges is not None:
            canonical = ",".join(f"{first}-{last}" for first, last in ranges)
            others.append((b"range", f"bytes={canonical}".encode()))
        method = "HEAD" if head else scope["method"]
        await super().__call__({**scope, "method": method, "headers": others}, receive, send)

    def _wanted(self, headers: Headers, size: int) -> list[tuple[int, int]] | None:
        asked, of = headers.getlist("range"), headers.get("if-range")
        if len(asked) != 1 or of not in (None, self.headers["etag"], self.headers["last-modified"]):
            return None
        return _ranges(asked[0], size)


def gone(name: str) -> ResultGone:
    """A result that was there when it was asked for."""
    return ResultGone(f"{name} was removed a moment ago", hint="GET /jobs/{id} says what has become of the job")


def _ranges(header: str, size: int) -> list[tuple[int, int]] | None:
    """(first, last) of each range that a file of `size` bytes has something of; None: the header is to be ignored.

    RFC 9110, 14.1.1 and 14.1.2: first-last, first- or -length, with commas between. Each part is matched by itself:
    one pattern for all of them takes exponential time on what is nearly a list.
    """
    unit, _, parts = header.partition("=")
    if len(header) > _LONGEST_RANGE or unit.strip().lower() != "bytes":
        return None
    specs = [part.strip() for part in parts.split(",")]
    found = [_RANGE.fullmatch(spec) for spec in specs if spec]
    ranges = []
    for match in found:
        if match is None or match[0] == "-":
            return None
        first, last = match.groups()
        if first and last and int(first) > int(last):
            return None
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        if start <= end:
            ranges.append((start, end))
    return ranges if found else None


def _matches(header: str, etag: str) -> bool:
    """RFC 9110, 13.1.2: weak comparison, a list, or a star."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or "*" in tags

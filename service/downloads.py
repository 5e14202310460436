"""One file as an answer: with ranges, and a strong ETag that makes parts and copies of it safe to use."""

import re
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from foveate.errors import ResultGone
from service.outputs import media_type

__all__ = ["DOWNLOAD", "download"]

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
    """Ignores a Range that is not one of bytes (RFC 9110, 14.2), where Starlette refuses the request; and a file that
    has vanished since it was asked for is a problem, not a crash."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not Path(self.path).is_file():
            raise ResultGone(
                f"{self.filename} was removed a moment ago", hint="GET /jobs/{id} says what has become of the job"
            )
        known = [(name, value) for name, value in scope["headers"] if name != b"range" or _is_range(value)]
        await super().__call__({**scope, "headers": known}, receive, send)


def _is_range(header: bytes) -> bool:
    """RFC 9110, 14.1.1 and 14.1.2: first-last, first- or -length, with commas between."""
    if not re.fullmatch(rb"bytes=(\s*(\d+-\d*|-\d+)?\s*,)*\s*(\d+-\d*|-\d+)\s*,?\s*", header, re.IGNORECASE):
        return False
    return all(int(first) <= int(last) for first, last in re.findall(rb"(\d+)-(\d+)", header))


def _matches(header: str, etag: str) -> bool:
    """RFC 9110, 13.1.2: weak comparison, a list, or a star."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or "*" in tags

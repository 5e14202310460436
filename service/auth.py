"""The one key of a service: asked for on every route but the health checks and the description of the API."""

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from foveate.errors import Unauthorized

_bearer = HTTPBearer(auto_error=False, description="`Authorization: Bearer KEY`, the key of FOVEATE_API_KEY")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key in a header of its own")

__all__ = ["require_key"]


async def require_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> None:
    """Unauthorized unless the service has no key, or the request carries it."""
    key = request.app.state.settings.api_key
    if key is None:
        return
    given = bearer.credentials if bearer is not None else header
    if given is None:
        raise Unauthorized("this service asks for a key", hint="send `Authorization: Bearer KEY` or `X-API-Key: KEY`")
    # Constant time, on the bytes that were sent: Starlette takes them for Latin-1.
    if not hmac.compare_digest(given.encode("latin-1"), key.get_secret_value().encode()):
        raise Unauthorized("the key is wrong", hint="ask whoever runs this service for its FOVEATE_API_KEY")

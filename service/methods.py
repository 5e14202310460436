"""Methods of every address at once: HEAD wherever GET is, and all that are allowed where one is not."""

from fastapi import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_HEAD = "foveate.head"

__all__ = ["HeadsAsGets", "allowed_methods", "wants_head_alone"]


class HeadsAsGets:
    """ASGI middleware that answers HEAD as it would GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET", _HEAD: True}, receive, without_body)


def wants_head_alone(scope: Scope) -> bool:
    """Whether a GET was a HEAD, and no body need be read from a disk."""
    return _HEAD in scope


def allowed_methods(request: Request) -> str:
    """What the header Allow says: the router itself knows of the first route alone that has this path."""
    routes = request.app.routes
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    allowed = [
        method for method, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)
    ]
    return ", ".join(["HEAD", *allowed] if "GET" in allowed else allowed)

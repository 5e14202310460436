"""Every error as an RFC 9457 problem: one table from error class to HTTP status, and the handlers that apply it."""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveate import errors
from foveate.errors import FoveateError
from foveate.schema import Problem, SegmentOptions
from jobs import ballast
from service.methods import allowed_methods

_OGC = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0/"
_OGC_CODES = frozenset({"no-such-process", "no-such-job", "result-not-ready"})
MEDIA_TYPE = "application/problem+json"

_OPTION = re.compile(r"--[a-z][a-z-]*")
_INPUTS = {"--" + name.replace("_", "-"): f"`{name}`" for name in SegmentOptions.model_fields}

STATUS: dict[type[FoveateError], int] = {
    errors.InputError: 400,
    errors.ImageUnsupported: 415,
    errors.NotFound: 404,
    errors.ResultGone: 410,
    errors.Conflict: 409,
    errors.Refused: 400,
    errors.Unauthorized: 401,
    errors.UploadTooLarge: 413,
    errors.Failure: 500,
    errors.DiskFull: 507,
    errors.ServiceUnreachable: 503,
}
"""A class without an entry has its parent's."""

_FRAMEWORK_CODES = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large", 416: "range-not-satisfiable"}
"""Of what no class of ours says; anything else is `request-refused`."""

_log = logging.getLogger("foveate.service")

__all__ = ["MEDIA_TYPE", "STATUS", "for_http", "install_error_handlers", "problem_response", "responses", "status_of"]


def status_of(kind: type[FoveateError]) -> int:
    return next((STATUS[parent] for parent in kind.__mro__ if parent in STATUS), 500)


def problem_response(request: Request, error: FoveateError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    status = status_of(type(error))
    sent = dict(headers or {})
    if status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    data = request.app.state.collaborators.files.data
    detail, hint = for_http(error.message, data), for_http(error.hint, data)
    return _respond(_problem(status, error.code, detail, hint, request.url.path), sent)


def responses(*kinds: type[FoveateError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may raise `kinds`, each with an example, for the OpenAPI document."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status = status_of(kind)
        entry = described.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        assert kind.__doc__ is not None, kind
        problem = _problem(status, kind.code, kind.__doc__, "what to do about it", "/jobs/…")
        entry["content"][MEDIA_TYPE]["examples"][kind.code] = {"value": problem.model_dump(mode="json")}
    return described


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(FoveateError, _on_foveate_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected)
    app.add_middleware(_PlainRefusals)


async def _on_foveate_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FoveateError)
    return problem_response(request, _with_cause(request, error))


def _with_cause(request: Request, error: FoveateError) -> FoveateError:
    """A Valkey that cannot write ends: where the disk of the data is full, that is what there is to mend."""
    if not isinstance(error, errors.ServiceUnreachable):
        return error
    here = request.app.state.collaborators
    free = here.intake.limits.free(here.files.data)
    if free > ballast.SIZE:
        return error
    return errors.ServiceUnreachable(
        f"{error.message}; the disk of the service is full ({free} bytes are free), which may be why",
        hint="remove images and jobs that are no longer needed, trying again where it fails, or give it a larger disk",
    )


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """FastAPI would say 422; OGC API - Processes wants 400."""
    assert isinstance(error, RequestValidationError)
    place, reason = _first_fault(error.errors())
    if place == "the body" and "json" not in request.headers.get("content-type", ""):
        reason = f"{reason}; it is read as JSON only with the header Content-Type: application/json"
    wrong = errors.OptionInvalid(f"{place}: {reason}", hint="the routes and their parameters are described at /docs")
    return problem_response(request, wrong)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself: no such route, wrong method, a body over the limit."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = allowed_methods(request)
    return _framework_response(request, error.status_code, error.detail, headers)


def _framework_response(request: Request, status: int, detail: str, headers: Mapping[str, str]) -> JSONResponse:
    code = _FRAMEWORK_CODES.get(status, "request-refused")
    said = f"{request.method} {request.url.path}: {detail}"
    hint = "the routes and their parameters are described at /docs"
    return _respond(_problem(status, code, said, hint, request.url.path), headers)


class _PlainRefusals:
    """ASGI middleware that makes problems of the one refusal that passes by all handlers.

    Starlette answers a body whose Content-Length is over the limit in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = False

        async def worded(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 413:
                refused = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
                if refused:
                    phrase = HTTPStatus(413).phrase
                    await _framework_response(Request(scope), 413, phrase, {})(scope, receive, send)
            if not refused:
                await send(message)

        await self._app(scope, receive, worded)


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    # The path holds ids alone; the query may hold a file's name, and stays out of the log.
    _log.error("unexpected error method=%s path=%s", request.method, request.url.path, exc_info=error)
    defect = errors.Unexpected(
        f"the service failed with an unexpected {type(error).__name__}",
        hint="this is a defect of Foveate: report it with the lines of the service's log",
    )
    return problem_response(request, defect)


def _first_fault(faults: Sequence[Any]) -> tuple[str, str]:
    fault = faults[0]
    if fault["type"] == "json_invalid":
        return "the body", f"is not JSON: {fault['ctx']['error']} at byte {fault['loc'][-1]}"
    place = ".".join(str(part) for part in fault["loc"] if part not in ("body", "query", "header")) or "the body"
    return place, str(fault["msg"]).removeprefix("Value error, ")


def for_http(text: str, data: Path) -> str:
    """`text` with the options of a segmentation named as the inputs of the process, not as on the command line, and
    without the place of the directory `data` on our machine."""
    return _OPTION.sub(lambda found: _INPUTS.get(found[0], found[0]), text.replace(str(data), "DATA"))


def _problem(status: int, code: str, detail: str, hint: str, instance: str) -> Problem:
    return Problem(
        type=_OGC + code if code in _OGC_CODES else f"urn:foveate:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        hint=hint,
        code=code,
        instance=instance,
    )


def _respond(problem: Problem, headers: Mapping[str, str]) -> JSONResponse:
    return JSONResponse(problem.model_dump(mode="json"), problem.status, dict(headers), media_type=MEDIA_TYPE)

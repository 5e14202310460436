"""Wiring only: settings and collaborators in, the application out."""

import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI

from foveate import __version__
from foveate.errors import Unauthorized
from foveate.schema import ImageInfo, Problem
from jobs.catalog import Catalog
from jobs.files import RESERVE_BYTES, FileStore
from jobs.queue import JobQueue
from jobs.reaper import Reaper
from jobs.retention import Retention
from jobs.store import JobStore
from jobs.valkey import connect, valkey_errors
from raster.probe import probe_in_child
from service.auth import require_key
from service.deps import Collaborators
from service.errors import install_error_handlers, responses
from service.intake import Intake, Probe
from service.methods import HeadsAsGets
from service.routes import health, images, jobs, landing, models, preview, processes, results
from service.settings import GB, ServiceSettings
from service.uploads import Limits, free_bytes

_SMALL_BODY = 1 << 20
"""Bytes of any request's body but an upload's."""
_PING_SECONDS = 2.0

__all__ = ["create_app"]


def create_app(
    settings: ServiceSettings, *, probe: Probe | None = None, free: Callable[[Path], int] = free_bytes
) -> FastAPI:
    """The API. `probe` looks at uploads (default: in a child process); `free` says how much room a disk has."""
    app = FastAPI(
        title="Foveate",
        version=__version__,
        summary="Foveated segmentation of images too large for any screen.",
        description="OGC API - Processes, Part 1, with images and models beside it. Errors are RFC 9457 problems.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=_lifespan,
        redirect_slashes=False,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.state.collaborators, app.state.reaper = _collaborators(settings, probe or _probe(settings), free)
    install_error_handlers(app)
    app.add_middleware(HeadsAsGets)
    # Of the routers, not of the application: that limit would be told before any middleware of ours.
    app.include_router(health.router, max_body_size=_SMALL_BODY)
    keyed: dict[str, Any] = {"dependencies": [Depends(require_key)], "responses": responses(Unauthorized)}
    # The limit of uploads is watched while the file is written (`service.uploads`), and told in our words.
    app.include_router(images.router, **keyed, max_body_size=sys.maxsize)
    for module in (landing, processes, jobs, preview, results, models):
        app.include_router(module.router, **keyed, max_body_size=_SMALL_BODY)
    _describe_problems(app)
    return app


def _collaborators(
    settings: ServiceSettings, probe: Probe, free: Callable[[Path], int]
) -> tuple[Collaborators, Reaper]:
    connection = connect(settings.valkey_url, hasty=True)
    store, queue, files = JobStore(connection), JobQueue(connection), FileStore(settings.data)
    limits = Limits(int(settings.max_upload_gb * GB), RESERVE_BYTES, free)
    # Who asks whether work can be taken does not want to wait until it can.
    impatient = connect(settings.valkey_url, seconds=_PING_SECONDS, retries=0, hasty=True)

    @valkey_errors()
    def ping() -> None:
        impatient.ping()

    collaborators = Collaborators(
        store, queue, files, Catalog(settings.bundle_dirs), Intake(files, limits, probe), ping
    )
    return collaborators, Reaper(store, queue, files, Retention(store, files, settings.keep_days))


def _probe(settings: ServiceSettings) -> Probe:
    def probe(path: Path, name: str) -> ImageInfo:
        return probe_in_child(path, name=name, sidecars=False, timeout_s=settings.probe_seconds)

    return probe


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Runs the reaper, which also removes what is too old, beside the requests."""
    stop = threading.Event()
    reaper = threading.Thread(target=app.state.reaper.run, args=(stop,), name="reaper", daemon=True)
    reaper.start()
    try:
        yield
    finally:
        stop.set()
        await app.state.collaborators.intake.end()
        await run_sync(partial(reaper.join, timeout=5.0))


def _describe_problems(app: FastAPI) -> None:
    """Puts the schema that every error's description refers to into the OpenAPI document.

    And takes out FastAPI's own answer to bad input, which is never given: `install_error_handlers` makes it a 400.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        schemas.setdefault("Problem", Problem.model_json_schema())
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]

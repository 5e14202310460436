"""What a route may ask for: the collaborators that `create_app` made, and the links that a request leads to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from jobs.catalog import Catalog
from jobs.files import FileStore
from jobs.queue import JobQueue
from jobs.store import JobStore
from service.intake import Intake

__all__ = ["Base", "Collaborators", "State"]


@dataclass(frozen=True)
class Collaborators:
    """Everything that outlives a request."""

    store: JobStore
    queue: JobQueue
    files: FileStore
    catalog: Catalog
    intake: Intake
    ping: Callable[[], None]
    """Returns if Valkey answers, raises ServiceUnreachable if not."""


def _state(request: Request) -> Collaborators:
    collaborators = request.app.state.collaborators
    assert isinstance(collaborators, Collaborators)
    return collaborators


def _base(request: Request) -> str:
    """The address under which the client reaches us, without a slash at its end."""
    return str(request.base_url).rstrip("/")


State = Annotated[Collaborators, Depends(_state)]
Base = Annotated[str, Depends(_base)]

"""Health: is the process there, and can it take work. Open to everyone, so they tell no more than that."""

from fastapi import APIRouter
from pydantic import BaseModel

from foveate.errors import DiskFull, ServiceUnreachable
from service.deps import State
from service.errors import responses
from service.examples import shown

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str


@router.get("/healthz", summary="Is the process alive", responses={200: shown({"status": "ok"}, "Alive; asks nobody")})
async def healthz() -> Health:
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Can work be taken",
    responses={
        200: shown({"status": "ready"}, "Valkey answers and the disk has room"),
        **responses(ServiceUnreachable, DiskFull),
    },
)
def readyz(state: State) -> Health:
    state.ping()
    state.intake.limits.check_space(state.files.data, 0)
    return Health(status="ready")

"""What a worker reads from its environment."""

from typing import Annotated

from pydantic import AfterValidator, Field

from foveate.schema import checked_device
from jobs.settings import StateSettings


class WorkerSettings(StateSettings):
    """One worker drives one engine on one device."""

    device: Annotated[str, AfterValidator(checked_device)] = "auto"
    """auto, cpu, cuda or cuda:N. Name it where workers with and without a GPU share DATA: they cannot continue each
    other's canvases."""
    memory_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """Bound of the engine's memory in GB (10^9 bytes)."""
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Patches a forward pass; unset: chosen for the device."""
    block: Annotated[int, Field(ge=1)] | None = None
    """Side of a block in lattice cells; unset: chosen for the memory."""
    grace_seconds: Annotated[float, Field(ge=0)] = 5.0
    """An engine that was asked to stop is killed after so long."""
    start_seconds: Annotated[float, Field(gt=0)] = 120.0
    """An engine that has not started (imports, device) after so long is killed."""

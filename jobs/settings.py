"""What every role reads from its environment; each role adds its own fields to `StateSettings`."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SHIPPED_BUNDLES = Path(__file__).parent.parent / "bundles"


class StateSettings(BaseSettings):
    """Where the state lies and how long it is kept; variables are `FOVEATE_` and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FOVEATE_", frozen=True, extra="ignore", env_ignore_empty=True)

    data: Path = Path.home() / ".local" / "share" / "foveate"
    """Directory of images, canvases, results and added bundles."""
    valkey_url: str = "redis://127.0.0.1:6379/0"
    """redis://, rediss:// or unix:// URL of Valkey; a password stands in it and is never logged."""
    bundles: Annotated[tuple[Path, ...], NoDecode] = (SHIPPED_BUNDLES,)
    """Directories of bundles beside DATA/models, separated by colons; DATA/models wins where two share a name."""
    keep_days: Annotated[float, Field(gt=0)] | None = None
    """Results and images older than this are removed; unset: kept for ever."""
    lease_seconds: Annotated[float, Field(gt=0)] = 120.0
    """A worker that reports no progress for so long has lost its job."""

    @field_validator("bundles", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(os.pathsep) if part)
        return value

    @field_validator("keep_days", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def bundle_dirs(self) -> tuple[Path, ...]:
        """The user's own bundles first: they win."""
        return (self.data / "models", *self.bundles)

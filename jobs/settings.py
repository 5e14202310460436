"""What every role reads from its environment; each role adds its own fields to `StateSettings`."""

import os
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from foveate.errors import OptionInvalid

__all__ = ["SHIPPED_BUNDLES", "StateSettings", "read_settings"]

SHIPPED_BUNDLES = Path(__file__).parent.parent / "bundles"

S = TypeVar("S", bound="StateSettings")


class StateSettings(BaseSettings):
    """Where the state lies and how long it is kept; variables are `FOVEATE_` and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FOVEATE_", frozen=True, extra="ignore", env_ignore_empty=True)

    data: Path = Path.home() / ".local" / "share" / "foveate"
    """Directory of images, canvases, results and added bundles."""
    valkey_url: str = "redis://127.0.0.1:6379/0"
    """redis://, rediss:// or unix:// URL of Valkey; a password stands in it and is never logged."""
    bundles: Annotated[tuple[Path, ...], NoDecode] = (SHIPPED_BUNDLES,)
    """Directories of bundles beside DATA/models, separated by colons; DATA/models wins where two share a name."""
    keep_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    """Results and images older than this are removed, after a century at most; unset: kept for ever."""
    lease_seconds: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """A worker that reports no progress for so long, a day at most, has lost its job."""

    @field_validator("bundles", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part).expanduser() for part in value.split(os.pathsep) if part)
        return value

    @field_validator("data")
    @classmethod
    def _at_home(cls, value: Path) -> Path:
        return value.expanduser()

    @property
    def bundle_dirs(self) -> tuple[Path, ...]:
        """The user's own bundles first: they win."""
        return (self.data / "models", *self.bundles)


def read_settings(role: type[S]) -> S:
    """The settings of a role from the environment; OptionInvalid names the variable and what is wrong with it."""
    try:
        return role()
    except ValidationError as error:
        first = error.errors()[0]
        variable = "FOVEATE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise OptionInvalid(
            f"{variable}={first['input']!r}: {first['msg']}", hint="correct the variable; .env.example lists them all"
        ) from error

"""What the API process reads from its environment, once."""

import ipaddress
from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from foveate.errors import OptionInvalid
from jobs.settings import StateSettings

__all__ = ["GB", "ServiceSettings"]

GB = 10**9


class ServiceSettings(StateSettings):
    """`FOVEATE_HOST`, `FOVEATE_PORT` and so on, beside what every role reads."""

    host: str = "127.0.0.1"
    """Address to bind; any other than this machine's own needs a key or an explicit opt-out."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any free port."""
    api_key: SecretStr | None = None
    """Clients send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`; unset or empty: no key is asked for."""
    allow_anonymous: bool = False
    """Serve other machines without a key: anyone who reaches the port can read every image."""
    max_upload_gb: Annotated[float, Field(gt=0, le=1_000_000)] = 100.0
    """Larger bodies are refused; in 10^9 bytes, and the same for what a zip unpacks to."""
    probe_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Wall clock for the child process that looks at an upload."""

    @field_validator("api_key", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    def checked(self) -> "ServiceSettings":
        """`self`, unless it would show the images to other machines without a key: OptionInvalid."""
        if self.api_key is None and not self.allow_anonymous and not _is_loopback(self.host):
            raise OptionInvalid(
                f"the service would listen on {self.host} without asking for a key",
                hint="set FOVEATE_API_KEY, or FOVEATE_ALLOW_ANONYMOUS=1 if everyone on that network may see the images",
            )
        return self


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

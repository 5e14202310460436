"""Foveate's contract with the outside: errors, wire schema, client and command line. Imports none of our packages."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveate.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    # On demand: httpx would cost every worker and every `import foveate` a tenth of a second.
    if name == "Client":
        from foveate.client import Client  # noqa: PLC0415

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

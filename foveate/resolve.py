"""The engine from outside: its commands are looked up by dotted name, for the wheel carries `foveate/` alone."""

import importlib
from typing import Any

from foveate.errors import EngineMissing

ENGINE_PACKAGES = frozenset({"raster", "model", "worker", "jobs", "service"})
TRAINING_LIBRARIES = frozenset({"matplotlib", "scipy", "tensorboard"})
"""What `foveate train` and `evaluate` import beyond what segmenting needs: the group `train` of pyproject.toml."""

__all__ = ["ENGINE_PACKAGES", "TRAINING_LIBRARIES", "resolve"]


def resolve(dotted: str) -> Any:
    """The object that `dotted` ("package.module:name") names.

    Raises EngineMissing where the package, or a library that it needs, is not installed. A missing module *inside*
    an installed engine is a defect of ours, and stays a ModuleNotFoundError.
    """
    module_name, _, attribute = dotted.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = (error.name or module_name).partition(".")[0]
        inside_engine = error.name is not None and "." in error.name and missing in ENGINE_PACKAGES
        if inside_engine:
            raise
        raise _engine_missing(dotted, missing) from error
    return getattr(module, attribute)


def _engine_missing(dotted: str, missing: str) -> EngineMissing:
    if missing in ENGINE_PACKAGES:
        return EngineMissing(
            f"this installation holds the client only: the engine's package {missing!r} is not here",
            hint="clone the repository and run `make up`, or use a running service: `foveate submit --server URL`",
        )
    target = "install-train" if missing in TRAINING_LIBRARIES else "install"
    return EngineMissing(
        f"the engine needs the library {missing!r} for {dotted!r}, and it is not installed",
        hint=f"in the repository run `make {target}`; `deploy/group.py` prints the requirements of each role",
    )

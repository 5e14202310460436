"""What pydantic refuses, on one line."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError


def faults_of(error: ValidationError) -> str:
    """Where it is wrong, and why: the first fault, or all fields that are missing."""
    faults = error.errors(include_url=False)
    first = faults[0]
    places = _place(first)
    if first["type"] == "missing":
        places = ", ".join(_place(fault) for fault in faults if fault["type"] == "missing")
    reason = first["msg"].removeprefix("Value error, ")
    return f"{places}: {reason}" if places else reason


def _place(fault: Mapping[str, Any]) -> str:
    return ".".join(str(part) for part in fault["loc"])

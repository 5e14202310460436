"""What pydantic refuses, on one line."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["faults_of"]


def faults_of(error: ValidationError) -> str:
    """Where it is wrong, and why: the first fault, or all fields that are missing.

    A field that nobody knows goes before those that are missing: it is often one of them, misspelt.
    """
    faults = error.errors(include_url=False)
    first = faults[0]
    if first["type"] == "missing":
        first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), first)
    if first["type"] == "extra_forbidden":
        return _unknown(error.title, first["loc"])
    places = _place(first["loc"])
    if first["type"] == "missing":
        places = ", ".join(_place(fault["loc"]) for fault in faults if fault["type"] == "missing")
    reason = first["msg"].removeprefix("Value error, ")
    return f"{places}: {reason}" if places else reason


def _unknown(title: str, place: tuple[int | str, ...]) -> str:
    *above, name = place
    near = difflib.get_close_matches(str(name), _fields(title, above), 1)
    return f"unknown field {_place(place)!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _fields(title: str, place: list[int | str]) -> set[str]:
    """The names that may stand at `place` in the model called `title`, in any of several where a union leaves it open.

    A place holds indices and the tags of unions too, which are no fields and lead nowhere else.
    """
    here = [model for model in _models_below(BaseModel) if model.__name__ == title]
    for part in place:
        fields: list[Any] = [model.model_fields[str(part)] for model in here if part in model.model_fields]
        here = [model for field in fields for model in _models_in(field.annotation)] or here
    return {name for model in here for name in model.model_fields}


def _models_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in model.__subclasses__():
        yield child
        yield from _models_below(child)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """All models that an annotation speaks of: `list[Scenes] | None` is of `Scenes`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _place(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place)

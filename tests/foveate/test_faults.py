"""What pydantic refuses, on one line."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from foveate.faults import faults_of
from foveate.schema import Wire


class Inner(BaseModel):
    side: int
    name: str

    @field_validator("side")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value


class Outer(BaseModel):
    inner: Inner
    count: int


class Cat(Wire):
    kind: Literal["cat"]
    lives: int = 9


class Dog(Wire):
    kind: Literal["dog"]
    leash: int = 1


class House(Wire):
    policies: list[str] = Field(default_factory=list)
    patch_size: int
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] | None = None


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"patch_size": 1, "polices": []}, "unknown field 'polices'; did you mean 'policies'?"),
        ({"patchsize": 1}, "unknown field 'patchsize'; did you mean 'patch_size'?"),
        ({"patch_size": 1, "colour": 1}, "unknown field 'colour'"),
        (
            {"patch_size": 1, "pets": [{"kind": "dog", "leesh": 2}]},
            "unknown field 'pets.0.dog.leesh'; did you mean 'leash'?",
        ),
    ],
)
def test_an_unknown_field_is_named_with_the_one_that_may_be_meant(entries: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        House.model_validate(entries)
    assert faults_of(caught.value) == said


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"inner": {}}, "inner.side, inner.name, count: Field required"),
        ({"inner": {"side": 3}, "count": 1}, "inner.side: 3 is odd"),
        ({"inner": {"side": 2, "name": "x"}, "count": "many"}, "count: Input should be a valid integer"),
        ([], "Input should be a valid dictionary or instance of Outer"),
    ],
)
def test_the_first_fault_or_everything_that_is_missing(entries: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(entries)
    assert faults_of(caught.value).startswith(said)

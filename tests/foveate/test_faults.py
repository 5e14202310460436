"""What pydantic refuses, on one line."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from foveate.faults import faults_of


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

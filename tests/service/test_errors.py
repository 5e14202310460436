"""One table makes every error HTTP."""

from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from foveate import errors
from foveate.errors import FoveateError, error_of
from service.app import create_app
from service.errors import STATUS, for_http, status_of
from service.settings import ServiceSettings


def below(kind: type[FoveateError]) -> list[type[FoveateError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in below(child))]


EVERY = below(FoveateError)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_blame_agrees_with_the_exit_code(kind: type[FoveateError]) -> None:
    """What the caller can mend is 4xx on the wire and 2 on the command line; the rest is 5xx and 1."""
    assert (status_of(kind) < 500) == (kind.exit_code == 2)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.OptionInvalid, 400),
        (errors.ImageUnreadable, 400),
        (errors.ImageUnsupported, 415),
        (errors.SpacingMismatch, 400),
        (errors.JobUnknown, 404),
        (errors.ResultNotReady, 404),
        (errors.ResultGone, 410),
        (errors.ImageInUse, 409),
        (errors.Unauthorized, 401),
        (errors.UploadTooLarge, 413),
        (errors.UploadInvalid, 400),
        (errors.DiskFull, 507),
        (errors.ServiceUnreachable, 503),
        (errors.CoverageHole, 500),
    ],
)
def test_status(kind: type[FoveateError], status: int) -> None:
    assert status_of(kind) == status


def test_options_are_named_as_the_inputs_of_the_process() -> None:
    data = Path("/srv/foveate")
    assert for_http("say --spacing S, or --mask-downsample 2", data) == "say `spacing` S, or `mask_downsample` 2"
    assert for_http("grant more (--memory) -- or --no-spacing", data) == "grant more (--memory) -- or --no-spacing"
    assert for_http("no space left on the device of /srv/foveate/jobs/x", data).endswith("of DATA/jobs/x")


def test_table_has_no_useless_row() -> None:
    assert all(STATUS[kind] != status_of(kind.__mro__[1]) for kind in STATUS if kind.__mro__[1] is not FoveateError)


@pytest.mark.parametrize("kind", [kind for kind in EVERY if not kind.__subclasses__()], ids=lambda kind: kind.code)
def test_code_leads_back_to_the_class(kind: type[FoveateError]) -> None:
    error = error_of(kind.code, "message", "hint")
    assert (type(error), error.message, error.hint) == (kind, "message", "hint")


def test_unknown_code_is_unexpected() -> None:
    assert type(error_of("from-the-future", "m", "h")) is errors.Unexpected


@pytest.mark.parametrize(("free", "said"), [(0, True), (1 << 40, False)])
def test_a_full_disk_is_named_where_valkey_does_not_answer(tmp_path: Path, free: int, said: bool) -> None:
    def no_answer() -> None:
        raise errors.ServiceUnreachable("Valkey does not answer", hint="start Valkey")

    app = create_app(ServiceSettings(data=tmp_path), free=lambda _: free)
    app.state.collaborators = replace(app.state.collaborators, ping=no_answer)
    problem = TestClient(app).get("/readyz").json()
    assert (problem["status"], problem["code"]) == (503, "service-unreachable")
    assert ("the disk of the service is full" in problem["detail"]) is said
    assert ("remove images and jobs" in problem["hint"]) is said


def test_a_problem_does_not_show_where_the_data_lie(tmp_path: Path) -> None:
    app = create_app(ServiceSettings(data=tmp_path))

    def full() -> None:
        raise errors.DiskFull(f"no space left on the device of {tmp_path}/incoming", hint="free some")

    app.state.collaborators = replace(app.state.collaborators, ping=full)
    problem = TestClient(app).get("/readyz")
    assert problem.json()["detail"] == "no space left on the device of DATA/incoming"

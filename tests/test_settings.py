"""`.env.example` names every setting, no other one, and the defaults that it shows are those of the code."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from jobs.settings import StateSettings
from service.settings import ServiceSettings
from worker.settings import WorkerSettings

ROOT = Path(__file__).parent.parent
EXAMPLE = (ROOT / ".env.example").read_text()
ROLES: tuple[type[BaseSettings], ...] = (StateSettings, ServiceSettings, WorkerSettings)
SHOWN = dict(re.findall(r"^(?:# )?(FOVEATE_[A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
PLACES = {"FOVEATE_DATA", "FOVEATE_BUNDLES"}


def settings_of(role: type[BaseSettings]) -> dict[str, object]:
    return {f"FOVEATE_{name.upper()}": field.default for name, field in role.model_fields.items()}


def test_every_setting_is_shown_and_nothing_else() -> None:
    assert set(SHOWN) == set().union(*(settings_of(role) for role in ROLES))


@pytest.mark.parametrize("role", ROLES)
def test_defaults_shown_are_the_defaults(role: type[BaseSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {name: value for name, value in SHOWN.items() if name in settings_of(role) and name not in PLACES}
    for name, value in shown.items():
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    assert settings_of(role) == {f"FOVEATE_{name.upper()}": value for name, value in role().model_dump().items()}


@pytest.mark.parametrize("role", ROLES)
def test_empty_line_of_the_example_means_unset(role: type[BaseSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {name for name, value in SHOWN.items() if not value and name in settings_of(role)}:
        monkeypatch.setenv(name, "")
        assert getattr(role(), name.removeprefix("FOVEATE_").lower()) is None


def test_compose_sets_only_what_exists() -> None:
    named = set(re.findall(r"FOVEATE_[A-Z_]+", (ROOT / "docker-compose.yml").read_text()))
    named |= set(re.findall(r"FOVEATE_[A-Z_]+", (ROOT / "Dockerfile").read_text()))
    assert named <= set(SHOWN)

"""Settings from the environment, and what a wrong one says."""

from pathlib import Path

import pytest

from foveate.errors import OptionInvalid
from jobs.settings import SHIPPED_BUNDLES, StateSettings, read_settings
from service.settings import ServiceSettings
from worker.settings import WorkerSettings


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_DATA", "/srv/data")
    monkeypatch.setenv("FOVEATE_KEEP_DAYS", "")
    monkeypatch.delenv("FOVEATE_BUNDLES", raising=False)
    settings = read_settings(StateSettings)
    assert (settings.data, settings.keep_days) == (Path("/srv/data"), None)
    assert settings.bundle_dirs == (Path("/srv/data/models"), SHIPPED_BUNDLES)
    monkeypatch.setenv("FOVEATE_BUNDLES", "/a:/b")
    assert read_settings(StateSettings).bundle_dirs == (Path("/srv/data/models"), Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FOVEATE_KEEP_DAYS", "-1"),
        ("FOVEATE_KEEP_DAYS", "inf"),
        ("FOVEATE_KEEP_DAYS", "1e10"),
        ("FOVEATE_LEASE_SECONDS", "inf"),
        ("FOVEATE_LEASE_SECONDS", "nan"),
        ("FOVEATE_DEVICE", "gpu"),
        ("FOVEATE_BATCH", "many"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(OptionInvalid, match=variable) as caught:
        read_settings(WorkerSettings)
    assert repr(value) in caught.value.message


@pytest.mark.parametrize("variable", ["FOVEATE_MAX_UPLOAD_GB", "FOVEATE_PROBE_SECONDS"])
@pytest.mark.parametrize("value", ["inf", "nan", "1e30", "0"])
def test_a_limit_of_the_service_has_a_limit(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(OptionInvalid, match=variable):
        read_settings(ServiceSettings)

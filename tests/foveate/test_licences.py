"""Licences: what has to be told whenever a model is used."""

import pytest

from foveate.licences import is_open, restriction
from tests.raster.cards import make_card


@pytest.mark.parametrize("licence", ["Apache-2.0", "mit", " CC0-1.0 ", "CC-BY-4.0", "GPL-3.0-or-later"])
def test_open_licences_go_without_saying(licence: str) -> None:
    assert is_open(licence)
    assert restriction(make_card(licence=licence)) is None


@pytest.mark.parametrize("licence", ["Research only: no commercial use", "CC-BY-NC-4.0", "other", "MIT, but ask first"])
def test_any_other_licence_is_told_with_the_models_name(licence: str) -> None:
    said = restriction(make_card(name="glands", version="0.1.0", licence=licence))
    assert said is not None
    assert "glands 0.1.0" in said
    assert licence in said

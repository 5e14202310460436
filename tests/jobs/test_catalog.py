"""Bundles by their cards: the user's win, a broken one hides no other."""

from pathlib import Path

import pytest

from foveate.errors import BundleInvalid, BundleUnknown
from jobs.catalog import Catalog
from tests.jobs.state import write_bundle


def test_bundles_are_listed_by_name_and_the_first_directory_wins(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    write_bundle(shipped, "landcover", version="1")
    write_bundle(shipped, "glands", version="1")
    write_bundle(own, "landcover", version="2")
    catalog = Catalog([own, shipped, tmp_path / "missing"])
    assert [(bundle.card.name, bundle.card.version) for bundle in catalog.bundles()] == [
        ("glands", "1"),
        ("landcover", "2"),
    ]
    assert catalog.bundle("landcover").directory == own / "landcover"
    write_bundle(own, "new")
    assert catalog.bundle("new").card.name == "new"


def test_a_broken_bundle_is_reported_and_hides_no_other(tmp_path: Path) -> None:
    write_bundle(tmp_path, "good")
    (write_bundle(tmp_path, "bad") / "bundle.json").write_text("{")
    (tmp_path / ".hidden").mkdir()
    catalog = Catalog([tmp_path])
    assert [bundle.card.name for bundle in catalog.bundles()] == ["good"]
    assert [broken.directory.name for broken in catalog.broken()] == ["bad"]
    with pytest.raises(BundleInvalid, match="'bad'"):
        catalog.bundle("bad")
    with pytest.raises(BundleUnknown, match="nothing") as caught:
        catalog.bundle("nothing")
    assert "good" in caught.value.hint

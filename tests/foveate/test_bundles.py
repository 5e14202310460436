"""Bundles out of directories and archives, and into them."""

import zipfile
from pathlib import Path

import pytest

from foveate.bundles import copy_bundle, pack_bundle, unpacked
from foveate.errors import BundleInvalid, BundleUnknown, OutputExists
from tests.service.processes import write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "glands"
    write_bundle(directory)
    (directory / "secret.txt").write_text("not part of the bundle")
    return directory


def test_packed_and_unpacked_it_is_the_same(bundle: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    pack_bundle(bundle, first)
    pack_bundle(bundle, second)
    assert first.read_bytes() == second.read_bytes()
    with unpacked(first) as directory:
        added = copy_bundle(directory, tmp_path / "models", replace=False)
    assert added == tmp_path / "models" / "glands"
    assert {path.name for path in added.iterdir()} == {"bundle.json", "weights.safetensors"}
    assert (added / "bundle.json").read_bytes() == (bundle / "bundle.json").read_bytes()
    with pytest.raises(OutputExists):
        pack_bundle(bundle, first)


def test_model_is_replaced_only_on_request(bundle: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    copy_bundle(bundle, models, replace=False)
    (bundle / "weights.safetensors").write_bytes(b"better")
    with pytest.raises(OutputExists):
        copy_bundle(bundle, models, replace=False)
    copy_bundle(bundle, models, replace=True)
    assert (models / "glands" / "weights.safetensors").read_bytes() == b"better"
    assert [path.name for path in models.iterdir()] == ["glands"]


def test_archive_cannot_write_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../bundle.json", "{}")
        archive.writestr("../../evil", "x")
    with unpacked(path) as directory:
        assert [found.name for found in directory.iterdir()] == ["bundle.json"]
    assert [found.name for found in tmp_path.iterdir()] == ["evil.zip"]


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    text, empty, two = tmp_path / "text.zip", tmp_path / "empty.zip", tmp_path / "two.zip"
    text.write_text("no archive")
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("readme", "x")
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("a/bundle.json", "{}")
        archive.writestr("b/bundle.json", "{}")
    for path, kind in (
        (text, BundleInvalid),
        (empty, BundleUnknown),
        (two, BundleInvalid),
        (tmp_path / "x", BundleUnknown),
    ):
        with pytest.raises(kind), unpacked(path):
            pass

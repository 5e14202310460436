"""Bundles out of directories and archives, and into them."""

import errno
import os
import shutil
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest

from foveate.bundles import MAX_ENTRIES, bundle_of, copy_bundle, named_bundle, pack_bundle, unpacked
from foveate.card import read_card
from foveate.errors import BundleInvalid, BundleUnknown, DiskFull, OptionInvalid, OutputExists
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


@pytest.mark.parametrize(
    "name", ["../bundle.json", "a/../../evil", "/bundle.json", "/etc/evil", "C:bundle.json", "..\\evil", "\\\\host\\x"]
)
def test_an_archive_that_leads_elsewhere_is_refused_by_entry(bundle: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.zip"
    pack_bundle(bundle, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleInvalid, match="leads out of the archive") as refused, unpacked(path):
        pass
    assert repr(name) in refused.value.message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["glands/weights.safetensors", "elsewhere"])
def test_a_link_in_an_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "link.zip"
    link = zipfile.ZipInfo(name)
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("glands/bundle.json", "{}")
        archive.writestr(link, "/etc/hostname")
    with pytest.raises(BundleInvalid, match=rf"'{name}' is a link"), unpacked(path):
        pass


def test_an_archive_that_swells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", "{}")
        archive.writestr("weights.safetensors", bytes(8 << 20))
    with pytest.raises(BundleInvalid, match=r"weights\.safetensors' unpacks from \d+ to 8388608 bytes"), unpacked(path):
        pass


def test_an_archive_that_understates_its_size_is_refused(tmp_path: Path) -> None:
    """The directory of the archive says 1 byte, which passes every limit; there are more."""
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", bytes(8 << 20))
        size = archive.getinfo("bundle.json").file_size.to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (1).to_bytes(4, "little")))
    with pytest.raises(BundleInvalid, match="no sound zip archive"), unpacked(path):
        pass


def test_an_archive_of_too_many_entries_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MAX_ENTRIES + 1):
            archive.writestr(f"{number}", "")
    with pytest.raises(BundleInvalid, match=f"holds {MAX_ENTRIES + 1} entries"), unpacked(path):
        pass


def test_unusual_packing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lzma.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("bundle.json", "{}")
    with pytest.raises(BundleInvalid, match="unusual method"), unpacked(path):
        pass


def test_a_finished_run_stands_for_its_bundle(bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "fold" / "mean"
    run.mkdir(parents=True)
    (run / "losses.csv").write_text("step,loss\n1,0.5\n")
    bundle.rename(run / "bundle")
    assert bundle_of(run) == run / "bundle"
    assert bundle_of(run / "bundle") == run / "bundle"
    with pytest.raises(BundleUnknown, match="holds 1 finished runs") as several:
        bundle_of(tmp_path / "runs")
    assert str(run) in several.value.hint


def test_a_name_is_no_path_and_a_path_no_name(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def known(name: str) -> Path:
        if name != "glands":
            raise BundleUnknown(f"no model {name!r}", hint="models here: glands")
        return tmp_path / "the catalogue's"

    here = tmp_path / "here"
    (here / "glands").mkdir(parents=True)
    bundle.rename(here / "mine")
    monkeypatch.chdir(here)
    assert named_bundle("glands", known) == tmp_path / "the catalogue's"
    assert named_bundle("./glands", known) == Path("glands")
    assert named_bundle("mine", known) == Path("mine")
    assert named_bundle(str(here / "mine"), known) == here / "mine"
    with pytest.raises(BundleUnknown, match="'nothing'"):
        named_bundle("nothing", known)


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ("step,loss\n1,0.75\n2,0.5\n", r"losses\.csv ends at step 2"),
        ("step,loss\n1,0.75\n2,0.5\n34", r"losses\.csv ends at step 2"),
        ("step,loss\n", "no step is done yet"),
        (None, "no step is done yet"),
    ],
)
def test_an_unfinished_run_says_how_far_it_is(tmp_path: Path, losses: str | None, says: str) -> None:
    (tmp_path / "recipe.yaml").write_text("{}")
    if losses is not None:
        (tmp_path / "losses.csv").write_text(losses)
    with pytest.raises(BundleUnknown, match=says) as refused:
        bundle_of(tmp_path)
    assert "foveate train" in refused.value.hint


def test_what_is_no_run_is_left_to_whoever_reads_the_card(tmp_path: Path) -> None:
    assert bundle_of(tmp_path) == tmp_path
    assert bundle_of(tmp_path / "nothing") == tmp_path / "nothing"


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


def test_a_packing_that_fails_leaves_nothing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(shutil, "copyfileobj", _full)
    with pytest.raises(DiskFull, match=r"no space left on the device of .*bundle\.zip"):
        pack_bundle(bundle, tmp_path / "out" / "bundle.zip")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_said_wherever_a_bundle_is_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_bundle(bundle, tmp_path / "bundle.zip")
    monkeypatch.setattr(shutil, "copyfileobj", _full)
    with pytest.raises(DiskFull, match="models"):
        copy_bundle(bundle, tmp_path / "models", replace=False)
    assert list((tmp_path / "models").iterdir()) == []
    with pytest.raises(DiskFull), unpacked(tmp_path / "bundle.zip"):
        pass


def test_the_earlier_bundle_stays_where_another_cannot_take_its_place(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = copy_bundle(bundle, tmp_path / "models", replace=False)
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name == "fresh":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(DiskFull):
        copy_bundle(bundle, tmp_path / "models", replace=True)
    assert list((tmp_path / "models").iterdir()) == [added]
    assert read_card(added) == read_card(bundle)


def test_a_place_where_nothing_can_be_written_is_named(bundle: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"/proc/bundle\.zip cannot be written") as refused:
        pack_bundle(bundle, Path("/proc/bundle.zip"))
    assert "--out" in refused.value.hint
    with pytest.raises(OptionInvalid, match="/proc/models cannot be written") as refused:
        copy_bundle(bundle, Path("/proc/models"), replace=False)
    assert "FOVEATE_DATA" in refused.value.hint


def test_a_card_is_not_taken_for_an_archive(tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text("{}")
    with pytest.raises(BundleInvalid, match="is a card or a recipe") as refused, unpacked(card):
        pass
    assert refused.value.hint.endswith(f"foveate models add FOLDER --card {card}")


def _full(plain: BinaryIO, out: BinaryIO, length: int) -> None:
    out.write(plain.read(9))
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

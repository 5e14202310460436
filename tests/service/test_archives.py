"""Zip archives as slides: what is unpacked to where, and every trick that is refused before it does harm."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from foveate.bundles import unpacked
from foveate.errors import BundleInvalid, BundleUnknown, DiskFull, UploadInvalid, UploadTooLarge
from service.archives import MAX_MEMBERS, is_zip, plain_name, unpack_slide
from service.uploads import Limits

DICOM = bytes(128) + b"DICM" + bytes(100)
ROOM = Limits(largest=10**9, reserve=0, free=lambda _: 10**12)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    directory = tmp_path / "content"
    directory.mkdir()
    return directory


def archive_of(tmp_path: Path, members: Mapping[str | zipfile.ZipInfo, bytes]) -> Path:
    path = tmp_path / "slide.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_mirax_slide_gets_our_names(tmp_path: Path, content: Path) -> None:
    members = {"Doe/Doe.mrxs": b"m", "Doe/Doe/Slidedat.ini": b"s", "Doe/Doe/Data0000.dat": b"d", "Doe/": b""}
    assert unpack_slide(archive_of(tmp_path, members), content, ROOM) == "slide.mrxs"
    assert files_in(content) == {"slide.mrxs": b"m", "slide/Slidedat.ini": b"s", "slide/Data0000.dat": b"d"}


def test_hamamatsu_slide_keeps_the_names_that_it_refers_to(tmp_path: Path, content: Path) -> None:
    members = {"a.vms": b"v", "a(0,0).jpg": b"j", "map.jpg": b"k"}
    assert unpack_slide(archive_of(tmp_path, members), content, ROOM) == "a.vms"
    assert files_in(content) == members


def test_dicom_series_is_a_directory(tmp_path: Path, content: Path) -> None:
    members = {"x/Doe 2.dcm": DICOM + b"2", "x/Doe 1": DICOM + b"1", "x/.DS_Store": b"clutter"}
    assert unpack_slide(archive_of(tmp_path, members), content, ROOM) == "."
    assert files_in(content) == {"instance-00000.dcm": DICOM + b"1", "instance-00001.dcm": DICOM + b"2"}


def test_single_file_loses_its_name(tmp_path: Path, content: Path) -> None:
    assert unpack_slide(archive_of(tmp_path, {"a/b/Jane Doe.SVS": b"x"}), content, ROOM) == "image.svs"
    assert files_in(content) == {"image.svs": b"x"}


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "C:\\evil",
        "..\\evil",
        "a/.hidden",
        "a\nb",
        "~/.ssh/x",
        "a/con:b",
        "\x7f",
    ],
)
def test_path_that_could_leave_is_refused(tmp_path: Path, content: Path, name: str) -> None:
    with pytest.raises(UploadInvalid):
        unpack_slide(archive_of(tmp_path, {name: b"x", "b.svs": b"y"}), content, ROOM)
    assert files_in(content) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["content", "slide.zip"]


def test_link_is_refused(tmp_path: Path, content: Path) -> None:
    with pytest.raises(UploadInvalid, match="link"):
        unpack_slide(archive_of(tmp_path, {link("a.svs"): b"/etc/passwd"}), content, ROOM)


def test_ratio_members_size_and_room_are_limited(tmp_path: Path, content: Path) -> None:
    bomb = archive_of(tmp_path, {"a.svs": bytes(10_000_000)})
    with pytest.raises(UploadInvalid, match="100:1"):
        unpack_slide(bomb, content, ROOM)
    crowd = archive_of(tmp_path, {f"{number}.dcm": b"" for number in range(MAX_MEMBERS + 1)})
    with pytest.raises(UploadInvalid, match="10001 members"):
        unpack_slide(crowd, content, ROOM)
    large = archive_of(tmp_path, {"a.svs": bytes(2000)})
    with pytest.raises(UploadTooLarge):
        unpack_slide(large, content, Limits(1999, 0, lambda _: 10**12))
    with pytest.raises(DiskFull):
        unpack_slide(large, content, Limits(10**9, 1000, lambda _: 2999))
    assert files_in(content) == {}


def test_bombs_of_overlapping_members_are_refused(tmp_path: Path, content: Path) -> None:
    """Every entry of the list points at one and the same compressed file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", DICOM * 20)
    raw = packed.getvalue()
    end = raw.rindex(b"PK\x05\x06")
    start = raw.index(b"PK\x01\x02")
    entry = raw[start:end]
    entries = b"".join(entry.replace(b"a.dcm", f"{number}.dcm".encode()) for number in range(9))
    path = tmp_path / "overlap.zip"
    path.write_bytes(raw[:start] + entries + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 9, 9, len(entries), start, 0))
    with pytest.raises(UploadInvalid):
        unpack_slide(path, content, ROOM)


@pytest.mark.parametrize("cut", [10, 40, -1, -30])
def test_damaged_archive_is_refused(tmp_path: Path, content: Path, cut: int) -> None:
    path = archive_of(tmp_path, {"a.svs": b"some bytes" * 100})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UploadInvalid, match="damaged"):
        unpack_slide(path, content, ROOM)


def flagged_as_utf8(raw: bytes) -> bytes:
    """A name that says it is UTF-8 and is not."""
    changed, at = bytearray(raw), raw.rindex(b"PK\x01\x02")
    changed[at + 9] |= 8
    changed[at + 46] = 0xFF
    return bytes(changed)


def pointing_before(raw: bytes) -> bytes:
    """Its list of members begins before the file does."""
    changed, at = bytearray(raw), raw.rindex(b"PK\x05\x06")
    changed[at + 19] = 0x7F
    return bytes(changed)


def with_a_false_second_record(raw: bytes) -> bytes:
    """A zip64 record that says little, away from where zipfile looks for one."""
    at = raw.rindex(b"PK\x05\x06")
    little = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 50, 0)
    much = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, at, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, at, 1)
    return raw[:at] + little + much + locator + raw[at:]


@pytest.mark.parametrize("change", [flagged_as_utf8, pointing_before, with_a_false_second_record])
def test_archive_that_misleads_zipfile_is_refused(
    tmp_path: Path, content: Path, change: Callable[[bytes], bytes]
) -> None:
    path = archive_of(tmp_path, {"a.svs": b"some bytes"})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UploadInvalid, match="damaged"):
        unpack_slide(path, content, ROOM)
    with pytest.raises((BundleInvalid, BundleUnknown)), unpacked(path):
        pass


@pytest.mark.parametrize("names", [("a", "a/b.svs"), (f"{'ä' * 150}.svs",)])
def test_paths_that_no_file_system_holds_are_refused(tmp_path: Path, content: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(UploadInvalid, match=r"file and a folder|long path"):
        unpack_slide(archive_of(tmp_path, dict.fromkeys(names, b"x")), content, ROOM)
    assert files_in(content) == {}


@pytest.mark.parametrize("name", ["a/" * 16_000 + "b", "/".join("a" * 40) + ".svs", "x" * 2000, "."])
def test_paths_that_cost_more_than_they_say_are_refused(tmp_path: Path, content: Path, name: str) -> None:
    with pytest.raises(UploadInvalid):
        unpack_slide(archive_of(tmp_path, {name: b"x", "b.svs": b"y"}), content, ROOM)
    assert files_in(content) == {}


def test_a_dicom_series_keeps_instances_that_have_our_names(tmp_path: Path, content: Path) -> None:
    members = {"DICOMDIR": DICOM + b"1", "instance-00000.dcm": DICOM + b"2"}
    assert unpack_slide(archive_of(tmp_path, members), content, ROOM) == "."
    assert files_in(content) == {"instance-00000.dcm": DICOM + b"1", "instance-00001.dcm": DICOM + b"2"}


def test_a_folder_that_has_our_name_for_another_is_refused(tmp_path: Path, content: Path) -> None:
    members = {"Doe.mrxs": b"m", "Doe/Slidedat.ini": b"s", "slide/x": b"d"}
    with pytest.raises(UploadInvalid, match="called slide"):
        unpack_slide(archive_of(tmp_path, members), content, ROOM)


def test_wrong_checksum_is_refused(tmp_path: Path, content: Path) -> None:
    path = tmp_path / "slide.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.svs", b"some bytes")
    path.write_bytes(path.read_bytes().replace(b"some bytes", b"sums bytes"))
    with pytest.raises(UploadInvalid, match="CRC"):
        unpack_slide(path, content, ROOM)


def test_encrypted_archive_is_refused(tmp_path: Path, content: Path) -> None:
    path = archive_of(tmp_path, {"a.svs": b"x"})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(UploadInvalid, match="encrypted"):
        unpack_slide(path, content, ROOM)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"only/": b""},
        {"a.tif": b"II*\0", "a.tfw": b"1"},
        {"a.mrxs": b"m", "b.mrxs": b"m", "a/Slidedat.ini": b""},
        {"A.dcm": DICOM, "a.dcm": DICOM},
        {"a.dcm": DICOM, "b.txt": b"note"},
    ],
)
def test_what_is_no_single_slide_is_refused(tmp_path: Path, content: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(UploadInvalid):
        unpack_slide(archive_of(tmp_path, members), content, ROOM)


def test_zip_is_known_by_content(tmp_path: Path) -> None:
    assert is_zip(archive_of(tmp_path, {"a": b""}))
    assert is_zip(archive_of(tmp_path, {}))
    (tmp_path / "other.zip").write_bytes(b"II*\0")
    assert not is_zip(tmp_path / "other.zip")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.svs", "image.svs"),
        ("a.TIFF", "image.tiff"),
        ("noext", "image"),
        ("a.b c", "image"),
        ("a.tif/../x", "image"),
        (".tif", "image"),
    ],
)
def test_plain_name(name: str, expected: str) -> None:
    assert plain_name(name) == expected

"""The data directory: whole or absent, and never outside itself."""

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foveate.errors import ImageUnknown, OptionInvalid, ResultGone, ResultUnknown
from jobs.files import PREVIEW, FileStore
from tests.jobs.state import add_image

HOSTILE = ["", ".", "..", "../images", "a/b", "/etc", "a\0b", "a\n", "x" * 200, "%2e%2e", "ä"]


def make_out(directory: Path, content: str) -> Path:
    out = directory / "out"
    out.mkdir()
    (out / "mask.tif").write_text(content)
    return out


def test_a_preview_is_there_while_its_attempt_lasts(files: FileStore) -> None:
    assert files.preview("job", 1) is None
    with files.attempt("job", 1) as scratch:
        (scratch / PREVIEW).write_text("coarse")
        shown = files.preview("job", 1)
        assert shown is not None
        assert shown.read_text() == "coarse"
        with files.attempt("job", 2):
            assert files.preview("job", 1) is None, "nobody shows what a superseded attempt left"
            assert files.preview("job", 2) is None
    assert files.preview("job", 2) is None


def test_an_image_is_there_once_it_is_committed(files: FileStore) -> None:
    staging = files.new_upload()
    assert files.list_images() == []
    files.drop_upload(staging)
    first, second = add_image(files, "first"), add_image(files, "second")
    assert files.list_images() == [second, first]
    assert files.image(first.id) == first
    assert files.image_path(first).read_bytes() == b"no pixels"
    files.delete_image(first.id)
    assert files.list_images() == [second]
    assert list(files.incoming.iterdir()) == []
    with pytest.raises(ImageUnknown, match=first.id):
        files.delete_image(first.id)


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS])
def test_a_deletion_needs_no_room_and_is_no_lie(files: FileStore, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    image = add_image(files)

    def refused(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(Path, "rename", refused)
    if reason == errno.ENOSPC:
        files.delete_image(image.id)
        assert files.list_images() == []
    else:
        with pytest.raises(OSError, match="Read-only"):
            files.delete_image(image.id)


def test_a_stray_file_among_the_images_is_none(files: FileStore) -> None:
    image = add_image(files)
    (files.images / "notes").write_text("not ours")
    (files.images / ".DS_Store").touch()
    assert files.list_images() == [image]
    with pytest.raises(ImageUnknown):
        files.image("notes")


@pytest.mark.parametrize("name", HOSTILE)
def test_an_id_that_is_no_id_is_unknown(files: FileStore, name: str) -> None:
    with pytest.raises(ImageUnknown):
        files.image(name)
    with pytest.raises(ResultGone):
        files.result(name, "mask.tif")
    files.delete_results(name)
    files.drop_attempts(name)
    assert sorted(path.name for path in files.data.iterdir()) == [
        "canvas",
        "images",
        "incoming",
        "jobs",
        "models",
        "results",
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=20) | st.sampled_from(["../../secret", "../job/mask.tif", "mask.tif/", "./mask.tif"]))
def test_no_result_name_leaves_its_directory(files: FileStore, name: str) -> None:
    if not files.published("job"):
        (files.data / "secret").write_text("secret")
        with files.attempt("job", 1) as scratch:
            files.publish("job", make_out(scratch, "mask"))
    try:
        path = files.result("job", name)
    except ResultUnknown:
        assert name != "mask.tif"
    else:
        assert path.resolve() == files.results / "job" / "mask.tif"


def test_the_first_publication_stands(files: FileStore) -> None:
    with files.attempt("job", 1) as first, files.attempt("job", 2) as second:
        assert not first.joinpath("out").exists()
        out = make_out(second, "second")
        files.publish("job", out)
    with files.attempt("job", 3) as third:
        files.publish("job", make_out(third, "third"))
    assert files.published("job")
    assert files.result("job", "mask.tif").read_text() == "second"
    assert files.result_names("job") == ["mask.tif"]
    assert list(files.jobs.iterdir()) == []
    with pytest.raises(ResultUnknown, match=r"nothing.tif"):
        files.result("job", "nothing.tif")
    files.delete_results("job")
    with pytest.raises(ResultGone, match="job"):
        files.result("job", "mask.tif")


def test_an_attempt_clears_what_its_killed_predecessor_left(files: FileStore) -> None:
    left = files.jobs / "job" / "attempt-1"
    left.mkdir(parents=True)
    later = files.jobs / "job" / "attempt-3"
    later.mkdir()
    with files.attempt("job", 2) as scratch:
        assert list(scratch.iterdir()) == []
        assert not left.exists()
    assert later.exists()


def test_a_canvas_in_use_is_not_dropped(files: FileStore) -> None:
    with files.held_canvas("digest") as canvas, files.held_canvas("digest") as same:
        assert canvas == same
        (canvas / "block").write_text("committed")
        assert not files.drop_canvas("digest")
    assert (canvas / "block").exists()
    assert files.idle_canvases(datetime.now(UTC) + timedelta(seconds=60)) == ["digest"]
    assert files.idle_canvases(datetime.now(UTC) - timedelta(seconds=60)) == []
    assert files.drop_canvas("digest")
    assert list(files.canvases.iterdir()) == []
    with files.held_canvas("digest") as canvas:
        assert list(canvas.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OptionInvalid, match=f"{tmp_path}/file/images"):
        FileStore(tmp_path / "file")


def test_what_is_settled_lies_on_the_disk(files: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink())))
    with files.attempt("job", 1) as scratch:
        out = make_out(scratch, "mask")
        files.settle(out)
        assert synced == [str(out / "mask.tif"), str(out)]

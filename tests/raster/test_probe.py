"""raster/probe.py: descriptions from a child that hostile files may kill, and the same errors as in this process."""

import subprocess
import time
from pathlib import Path

import pytest

from foveate.errors import ImageLimits, ImageMissing, ImageUnreadable, ImageUnsupported
from raster.image import ImageRef
from raster.probe import probe, probe_in_child
from tests.shared import DATA


@pytest.mark.parametrize(
    "name", ["geotiff/RGBA.uint16.tif", "geotiff/cog_gcps_ovr.tif", "slides/CMU-1-Small-Region.svs", "photos/cmyk.jpg"]
)
def test_the_child_sees_what_this_process_sees(name: str) -> None:
    assert probe_in_child(DATA / name) == probe(ImageRef(DATA / name, sidecars=False))


def test_sidecars_are_read_only_when_asked() -> None:
    path = DATA / "geotiff/colorado_extmask.tif"
    assert probe_in_child(path).validity == "none"
    assert probe_in_child(path, sidecars=True).validity == "mask"


def test_the_users_name_is_shown(tmp_path: Path) -> None:
    stored = tmp_path / "original"
    stored.write_bytes((DATA / "photos/rgba.png").read_bytes())
    assert probe_in_child(stored, name="My Slide.png").name == "My Slide.png"
    stored.write_text("no image")
    with pytest.raises(ImageUnsupported, match=r"My Slide\.png") as refusal:
        probe_in_child(stored, name="My Slide.png")
    assert str(tmp_path) not in refusal.value.message + refusal.value.hint


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("broken/libtiff_segfault.tif", ImageLimits),
        ("broken/huge-sparse.tiff", ImageLimits),
        ("broken/unopenable.tiff", ImageUnreadable),
        ("broken/unreadable.svs", ImageUnreadable),
        ("geotiff/RGB.byte.gcp.vrt", ImageUnsupported),
        ("nothing.tif", ImageMissing),
    ],
)
def test_errors_keep_their_class_and_hint(name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=Path(name).name) as refusal:
        probe_in_child(DATA / name)
    assert getattr(refusal.value, "hint", "")


def in_child(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let the child run `body` where it would open the image."""
    program = f"import raster.probe as module\ndef probe(ref):\n    {body}\nmodule.probe = probe\nmodule.main()\n"
    start = subprocess.Popen

    def started(command: list[str], **options: object) -> object:
        return start([command[0], "-c", program], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", started)


def test_a_crash_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    in_child(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ImageUnreadable, match=r"x\.tif crashed the reader \(SIGSEGV\)"):
        probe_in_child(Path("x.tif"))


def test_a_hang_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    in_child(monkeypatch, "import time; time.sleep(600)")
    started = time.monotonic()
    with pytest.raises(ImageLimits, match=r"x\.tif could not be opened within 2 seconds"):
        probe_in_child(Path("x.tif"), timeout_s=2)
    assert time.monotonic() - started < 60


def test_endless_work_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    in_child(monkeypatch, "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 9))\n    while True: pass")
    with pytest.raises(ImageLimits, match="within"):
        probe_in_child(Path("x.tif"))


def test_a_flood_of_memory_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    in_child(monkeypatch, "bytearray(8 << 30)")
    with pytest.raises(ImageLimits, match=r"x\.tif needs more memory"):
        probe_in_child(Path("x.tif"))


def test_what_a_library_prints_is_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    in_child(monkeypatch, "print('hello', flush=True); raise RuntimeError('odd codec')")
    with pytest.raises(ImageUnreadable, match="odd codec"):
        probe_in_child(Path("x.tif"))

"""What the demo does around the service: an earlier result stays until there is another, and hints fit the image."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foveate.errors import ImageUnsupported, OutputExists

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import demo


def result(directory: Path, crs: str | None = None) -> Path:
    image = {"width": 4, "height": 3, "crs": crs}
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps({"image": image, "model": {"name": "m"}, "warnings": []}))
    (directory / "statistics.json").write_text(json.dumps({"classes": []}))
    return directory


def test_a_demo_that_fails_leaves_the_earlier_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Service:
        def __init__(self, _: Path) -> None: ...

        def __enter__(self) -> None:
            raise ImageUnsupported("no reader takes it", hint="another image")

        def __exit__(self, *_: Any) -> None: ...

    out = result(tmp_path / "out")
    image = tmp_path / "image.txt"
    image.touch()
    monkeypatch.setattr(demo, "WORK", tmp_path / "work")
    monkeypatch.setattr(demo, "running_service", Service)
    monkeypatch.setattr(demo, "exit_on_signals", lambda: None)
    monkeypatch.setattr(sys, "argv", ["demo.py", str(image), "--out", str(out)])
    with pytest.raises(SystemExit) as left:
        demo.main()
    assert left.value.code == 2
    assert (out / "manifest.json").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_the_demo_ends_its_service(number: signal.Signals) -> None:
    code = (
        "import signal, time, demo; signal.signal(signal.SIGHUP, signal.SIG_DFL); demo.exit_on_signals()\n"
        "try: print('up', flush=True); time.sleep(60)\n"
        "finally: print('stopped', flush=True)"
    )
    place = Path(demo.__file__).parent
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.communicate(timeout=30) == ("stopped\n", "error: terminated\n")


def test_a_result_takes_the_place_of_an_earlier_one_and_of_nothing_else(tmp_path: Path) -> None:
    out = result(tmp_path / "out")
    (out / "old").touch()
    demo.publish(result(tmp_path / "made"), out)
    assert {path.name for path in out.iterdir()} == {"manifest.json", "statistics.json"}
    (out / "manifest.json").unlink()
    with pytest.raises(OutputExists, match="in the way"):
        demo.publish(result(tmp_path / "made"), out)
    assert (out / "statistics.json").is_file()


@pytest.mark.parametrize(("crs", "program"), [("EPSG:32640", "QGIS"), (None, "QuPath")])
def test_polygons_are_opened_in_what_reads_them(
    crs: str | None, program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.print_summary(Path("image.tif"), result(tmp_path / "out", crs), 1.0)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "regions.geojson" in line]
    assert line.split()[1] == f"{program}:"

"""One image through a real service: start it, upload, wait, download, stop. `make demo` runs this.

usage: python examples/demo.py [IMAGE] [--model NAME] [--out DIR]
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

from demo_scene import CREDIT, NOTE, make_scene

from foveate import Client
from foveate.errors import Failure, FoveateError, ImageMissing, OutputExists, Unexpected
from foveate.progress import show_progress
from foveate.schema import StatusInfo

ROOT = Path(__file__).parent.parent
WORK = ROOT / "demo-data"
STOP_SECONDS = 60.0


def demo_scene() -> Path:
    """The scene of demo_scene.py; made once and kept, so that it can be opened beside its mask."""
    path = WORK / "scene.tif"
    if not path.exists():
        print("making the demo's scene (some seconds, once)", file=sys.stderr)
        make_scene(path)
    print(f"{NOTE}\nImages: {CREDIT}.")
    return path


def check_out(out: Path) -> None:
    """OutputExists where something else than an earlier demo's result is in the way."""
    if out.exists() and not (out / "manifest.json").exists():
        raise OutputExists(f"{out} is in the way", hint="move it, or name another directory with --out")


def publish(made: Path, out: Path) -> None:
    """Put the finished directory `made` in the place of `out`, where an earlier result stays until then."""
    check_out(out)
    if out.exists():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, out)


@contextmanager
def running_service(data: Path) -> Iterator[Client]:
    """`foveate up` on a free port, for as long as the block lasts; the end of its log follows if something fails."""
    foveate = Path(sys.executable).with_name("foveate")
    command = [str(foveate), "up", "--port", "0", "--data", str(data), "--json"]
    # The user's own settings (a key, another Valkey) are meant for another service than this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOVEATE_")}
    log = data / "up.log"
    with log.open("wb") as stderr:
        service = subprocess.Popen(
            command, env=environment, stdout=PIPE, stderr=stderr, stdin=DEVNULL, text=True, start_new_session=True
        )
    try:
        with Client(announced_url(service)) as client:
            yield client
    except Failure:
        lines = [line for line in log.read_text().splitlines() if "uvicorn.access" not in line]
        print("--- the end of the service's log ---", *lines[-40:], sep="\n", file=sys.stderr)
        raise
    finally:
        stop(service)


def announced_url(service: "subprocess.Popen[str]") -> str:
    """Where the service listens: it says so in one JSON document, as soon as it is ready."""
    assert service.stdout is not None
    document = ""
    for line in service.stdout:
        document += line
        if line == "}\n":
            break
    announced: dict[str, str] = json.loads(document or "{}")
    if "url" not in announced:
        raise Unexpected("`foveate up` did not start", hint="the lines above say why")
    return announced["url"]


def stop(service: "subprocess.Popen[str]") -> None:
    """As Ctrl-C would; what does not end within STOP_SECONDS is killed."""
    service.send_signal(signal.SIGINT)
    try:
        service.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(service.pid, signal.SIGKILL)
        service.wait()


def segment(client: Client, image: Path, model: str | None, out: Path) -> None:
    """The four calls that any client makes: upload, submit, wait, fetch."""
    with show_progress("upload") as report:
        stored = client.upload(image, lambda share: report(share, ""))
    job = client.submit(stored.id, **({"model": model} if model else {}))
    with show_progress("segment") as report:
        client.wait(job.jobID, lambda status: report((status.progress or 0) / 100, shown(status)))
    client.fetch(job.jobID, out)


def shown(status: StatusInfo) -> str:
    return status.message or status.status.value


def print_summary(image: Path, out: Path, seconds: float) -> None:
    statistics = json.loads((out / "statistics.json").read_text())
    manifest = json.loads((out / "manifest.json").read_text())
    size = "{width} x {height}".format(**manifest["image"])
    print(f"\n{image.name}: {size} pixels by {manifest['model']['name']}, {seconds:.0f} s")
    print(f"\n{'class':<16}{'pixels':>14}{'share':>9}{'area':>16}")
    for row in statistics["classes"]:
        area = "" if row["area"] is None else f"{row['area']:,.0f} {row['area_unit']}"
        print(f"{row['name']:<16}{row['pixels']:>14,}{row['share']:>9.1%}{area:>16}")
    for warning in manifest["warnings"]:
        print(f"warning: {warning}")
    polygons = "QGIS: the classes as polygons, in longitude and latitude"
    if manifest["image"]["crs"] is None:
        polygons = f"QuPath: open {image}, then drag this onto it"
    print(f"""
What to open, in {out}:
  overlay.png      the mask over the image, in any viewer
  mask.tif         QGIS: drag it over {image}; colours and class names come with it
  foveation.tif    QGIS: where the model looked closely (band 2: the chosen field of view)
  regions.geojson  {polygons}
  manifest.json    every parameter, count and checksum of the run""")


def exit_on_signals() -> None:
    """SIGTERM and the end of the terminal stop the service too, which has a session of its own; nohup stays nohup."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: sys.exit("error: terminated"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("--model", help="a bundle's name; without it the only one that fits the image")
    parser.add_argument("--out", type=Path, default=ROOT / "demo-output")
    arguments = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    exit_on_signals()
    try:
        if arguments.image is not None and not arguments.image.is_file():
            raise ImageMissing(f"{arguments.image} is not a file", hint="IMAGE= takes the path of one image file")
        check_out(arguments.out)
        image = arguments.image or demo_scene()
        model = arguments.model or (None if arguments.image else "landcover")
        started = time.monotonic()
        # Beside the clone, not in /tmp: the service keeps its own copy of the image.
        with tempfile.TemporaryDirectory(dir=WORK) as data, running_service(Path(data)) as client:
            segment(client, image, model, Path(data) / "fetched")
            publish(Path(data) / "fetched", arguments.out)
        print_summary(image, arguments.out, time.monotonic() - started)
    except FoveateError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit("error: interrupted; everything is stopped")


if __name__ == "__main__":
    main()

"""regions.geojson: the classes of a mask as polygons, written while the mask is still being made.

`python -m raster.regions` is the process that does it, for it holds the interpreter's lock: it takes a line of JSON, a
RegionsJob, from stdin, after it the mask's pixels row by row, and prints the summary.
"""

import contextlib
import gc
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from foveate.errors import Dismissed, FoveateError, Unexpected, WorkerLost, error_of
from foveate.schema import NODATA
from raster.collection import FeatureFile
from raster.features import Features, RegionsJob
from raster.polygonize import Polygonizer
from raster.rings import Outlines
from raster.whole_file import whole_file

_STRIP_PIXELS = 1 << 22


class RegionsCounts(BaseModel):
    """What was written; areas in mask pixels."""

    model_config = ConfigDict(frozen=True)

    regions: int
    minimum_area: int
    dropped_pixels: int
    """Pixels of a class that are in no polygon: their component is too small, or has no place on the map."""
    beyond_map: bool = False
    """Whether there may be such, as beyond the limb of a satellite's full disk."""


class RegionsSummary(RegionsCounts):
    """The same, and the file's SHA-256, which the process takes while others finish the mask."""

    sha256: str


_standing_by: list["subprocess.Popen[bytes]"] = []
"""At most one child that has no job yet."""


def stand_by() -> None:
    """Start the child of the next RegionsProcess now: it imports for most of a second. It ends with this process."""
    if not _standing_by:
        _standing_by.append(_start())


def _start() -> "subprocess.Popen[bytes]":
    # What one of its threads makes the other one frees: out of two heaps (glibc's way) it takes 30 MB more.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-m", "raster.regions"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _child() -> "subprocess.Popen[bytes]":
    """The one that stands by, unless it was killed meanwhile; else a new one."""
    while _standing_by:
        child = _standing_by.pop()
        if child.poll() is None:
            return child
        child.communicate()  # closes what is left of it
    return _start()


class RegionsProcess:
    """`write_regions` in a child process that is fed row by row. A context manager, whose end is the child's.

    Whoever writes rows that the child is not ready for waits. For one thread at a time.
    """

    def __init__(self, job: RegionsJob) -> None:
        self._job = job
        self._child = _child()
        self._send(job.model_dump_json().encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.close()

    def kill(self) -> None:
        """End the child, which breaks the pipe of whoever writes to it; from any thread."""
        self._child.kill()

    def close(self) -> None:
        """Free what a child that has ended, or was killed, left."""
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._child.wait()
        for left in self._job.out.parent.glob(f".{self._job.out.name}.*.part"):
            left.unlink()

    def write(self, rows: NDArray[np.uint8]) -> None:
        """Hand over the next rows of the mask, uint8 (height, width). Raises what ended the child."""
        self._send(np.ascontiguousarray(rows).data)

    def end(self) -> None:
        """Say that every row was written; the child finishes its file."""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()

    def summary(self) -> RegionsSummary:
        """Wait for the child's end. Raises what ended it otherwise."""
        self._child.wait()
        return self._answer()

    def _send(self, content: bytes | memoryview) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(content)
            self._child.stdin.flush()
        except BrokenPipeError:
            self._child.wait()
            self._answer()
            raise

    def _answer(self) -> RegionsSummary:
        assert self._child.stdout is not None
        answer = self._child.stdout.read()
        if self._child.returncode == 0:
            return RegionsSummary.model_validate_json(answer)
        if self._child.returncode == 1 and answer:
            raise error_of(**json.loads(answer))
        code = self._child.returncode
        what = f"the process that writes {self._job.out.name}"
        if code < 0:
            raise WorkerLost(
                f"{what} was killed by signal {-code}",
                hint="signal 9 often means too little memory: use a mask_downsample of 2 or more; run the job again",
            )
        raise Unexpected(
            f"{what} ended with status {code}",
            hint="what it met stands in the log; without polygons (regions=false, --no-regions) the mask can be made",
        )


def write_regions(job: RegionsJob, strips: Iterator[NDArray[np.uint8]]) -> RegionsSummary:
    """Write the polygons of a mask that comes in strips of whole rows to `job.out`. Raises DiskFull."""
    features, size = Features(job), job.mask_size
    with whole_file(job.out) as partial, partial.open("w+b") as file:
        most = max(size.width * size.height, job.minimum_area) + 1
        room = len(_head(job, features, RegionsCounts(regions=most, minimum_area=most, dropped_pixels=most))) + 1
        written = FeatureFile(file, room, job.minimum_area, job.maximum_regions)
        polygonizer = Polygonizer(size.width, lambda: written.minimum)
        examined = 0

        def traced() -> Iterator[Outlines]:
            nonlocal examined
            for rows in strips:
                examined += int(np.count_nonzero(rows != NODATA))
                yield from polygonizer.add(rows)
            yield from polygonizer.finish()

        for outlines in _ahead(traced()):
            written.extend(features.of(outlines))
        regions, pixels = written.settle()
        counts = RegionsCounts(
            regions=regions,
            minimum_area=written.minimum,
            dropped_pixels=examined - pixels,
            beyond_map=features.earth is not None and not features.earth.even,
        )
        written.finish(_head(job, features, counts))
    with job.out.open("rb") as ready:
        return RegionsSummary(**counts.model_dump(), sha256=hashlib.file_digest(ready, "sha256").hexdigest())


def _ahead(items: Iterator[Outlines]) -> Iterator[Outlines]:
    """The same; each is made in a thread while the one before is used, which numpy lets run side by side."""
    with ThreadPoolExecutor(1, "trace") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _head(job: RegionsJob, features: Features, counts: RegionsCounts) -> bytes:
    """What the file says about itself, up to the first feature."""
    on_map = features.earth is not None
    content: dict[str, Any] = {
        "frame": "longitude and latitude (WGS 84)" if on_map else f"{job.frame} pixels, origin top left, y down",
        "minimum_area_px": counts.minimum_area * job.mask_downsample**2,
        "dropped_px": counts.dropped_pixels * job.mask_downsample**2,
        "regions": counts.regions,
    }
    if job.bounds is not None and not on_map:
        # Viewers that crop a slide to its scanner bounds subtract this from every coordinate.
        content["bounds_offset_px"] = job.bounds[:2]
    collection = json.dumps({"type": "FeatureCollection", "foveate": content}, ensure_ascii=False)
    return f'{collection[:-1]}, "features": ['.encode()


def _strips(job: RegionsJob, pixels: IO[bytes]) -> Iterator[NDArray[np.uint8]]:
    """The mask from a stream of its pixels; a stream that ends early is that of a parent that has."""
    size = job.mask_size
    most = max(1, _STRIP_PIXELS // size.width)
    for y in range(0, size.height, most):
        rows = min(most, size.height - y)
        content = pixels.read(rows * size.width)
        if len(content) < rows * size.width:
            raise Dismissed("the process that asked for the polygons is gone", hint="submit the job again")
        yield np.frombuffer(content, np.uint8).reshape(rows, size.width)


def _main() -> int:
    asked = sys.stdin.buffer.readline()
    if not asked:
        return 0  # it stood by, and was not needed
    # The collector would look through all open walks again and again, and find nothing: they form no cycles.
    gc.disable()
    try:
        job = RegionsJob.model_validate_json(asked)
        summary = write_regions(job, _strips(job, sys.stdin.buffer))
    except FoveateError as error:
        answer = {"code": error.code, "message": error.message, "hint": error.hint}
        # A parent that was killed cannot be told; unbuffered, so that nothing is tried again at the end.
        with contextlib.suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), json.dumps(answer).encode())
        return 1
    sys.stdout.write(summary.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(_main())

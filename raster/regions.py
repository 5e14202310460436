"""regions.geojson: the classes of a mask as polygons, streamed from disk to disk.

Slides and images without a place on Earth follow QuPath's conventions, in level-0 pixels; georeferenced ones RFC 7946.
`python -m raster.regions` reads a RegionsJob as JSON from stdin and prints the summary: vectorising holds the
interpreter's lock, so it runs in a process of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from foveate import errors
from foveate.errors import Dismissed, FoveateError, Unexpected
from foveate.schema import ClassCard, SpacingInfo
from raster.cog import CACHE_BYTES, reading_back
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.overviews import window_of
from raster.placement import EarthPlacement, on_earth
from raster.polygonize import Outline, outlines
from raster.statistics import area
from raster.whole_file import whole_file

_NAMESPACE = uuid.UUID("6f3c1d0e-52f4-5c55-9b0c-8f5d3a1f7e21")
"""Of the regions' ids: the uuid5 of a class and a geometry in level-0 pixels."""

_POLL_SECONDS = 0.2


class RegionsJob(BaseModel):
    """All that the polygons of one mask depend on.

    `georeference`, `spacing` and `bounds` are the image's, at level 0; `region` is what the mask covers of it, in
    level-0 pixels, and the side of a mask pixel is `mask_downsample` of those. Components below `minimum_area` [mask
    pixels] are left out, and if more than `maximum_regions` remain, the minimum rises until no more do.
    """

    model_config = ConfigDict(frozen=True)

    mask: Path
    out: Path
    classes: tuple[ClassCard, ...]
    region: Region
    mask_downsample: int = 1
    georeference: Georeference = Georeference()
    spacing: SpacingInfo | None = None
    frame: str = "level-0"
    bounds: tuple[int, int, int, int] | None = None
    minimum_area: int = 16
    maximum_regions: int = 200_000


class RegionsSummary(BaseModel):
    """What was written; areas in mask pixels."""

    model_config = ConfigDict(frozen=True)

    regions: int
    minimum_area: int
    dropped_pixels: int
    """Pixels of a class that are in no polygon, since their component is too small."""


def write_regions_in_process(job: RegionsJob, check: Callable[[], None] = lambda: None) -> RegionsSummary:
    """`write_regions` in a child process. `check` is called a few times a second; if it raises, the child is killed."""
    with subprocess.Popen(
        [sys.executable, "-m", "raster.regions"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            answer = _communicate(child, job.model_dump_json(), check)
        except BaseException:
            child.kill()
            raise
    if child.returncode == 0:
        return RegionsSummary.model_validate_json(answer)
    if child.returncode == 1 and answer:
        error = json.loads(answer)
        raise getattr(errors, error["kind"])(error["message"], hint=error["hint"])
    raise Unexpected(
        f"the process that vectorises {job.mask.name} ended with {child.returncode}",
        hint="it may have run out of memory; use a mask_downsample of 2 or more",
    )


def write_regions(job: RegionsJob) -> RegionsSummary:
    """Write the polygons of `job.mask` to `job.out`. Raises DiskFull."""
    describe = _Description(job)
    with (
        whole_file(job.out) as partial,
        tempfile.TemporaryFile(dir=job.out.parent) as file,
        rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
        reading_back(job.mask) as mask,
    ):
        spool = _Spool(file, job.minimum_area, job.maximum_regions)
        examined = 0
        parent = os.getppid()

        def read(region: Region) -> NDArray[np.uint8]:
            nonlocal examined
            if os.getppid() != parent:
                raise Dismissed("the process that asked for the polygons is gone", hint="submit the job again")
            values: NDArray[np.uint8] = mask.read(1, window=window_of(region))
            examined += int(np.count_nonzero(values != mask.nodata))
            return values

        for outline in outlines(Size(mask.width, mask.height), read, lambda: spool.minimum):
            feature = describe.feature(outline)
            if feature is not None:
                spool.append(feature, outline.pixels)
        regions, pixels = spool.settle()
        summary = RegionsSummary(regions=regions, minimum_area=spool.minimum, dropped_pixels=examined - pixels)
        _write_collection(partial, describe.collection(summary), spool)
    return summary


class _Spool:
    """Features on disk in the order of their coming, with a minimum area that rises when they become too many."""

    def __init__(self, file: IO[bytes], minimum: int, maximum_regions: int) -> None:
        self.minimum = max(1, minimum)
        self._file = file
        self._maximum = maximum_regions
        self._areas, self._offsets, self._lengths = array("q"), array("q"), array("q")
        self._end = 0

    def append(self, feature: bytes, area: int) -> None:
        self._file.write(feature)
        for column, value in ((self._areas, area), (self._offsets, self._end), (self._lengths, len(feature))):
            column.append(value)
        self._end += len(feature)
        if len(self._areas) > 2 * self._maximum:
            self.settle()

    def settle(self) -> tuple[int, int]:
        """Raise the minimum until at most the maximum remain; how many do, and the sum of their areas."""
        areas = np.array(self._areas, dtype=np.int64)
        if len(areas) > self._maximum:
            self.minimum = max(self.minimum, int(np.sort(areas)[-self._maximum - 1]) + 1)
        kept = areas >= self.minimum
        for name in ("_areas", "_offsets", "_lengths"):
            column = np.array(getattr(self, name), dtype=np.int64)[kept]
            setattr(self, name, array("q", column.tobytes()))
        return int(kept.sum()), int(areas[kept].sum())

    def features(self) -> Iterator[bytes]:
        for offset, length in zip(self._offsets, self._lengths, strict=True):
            self._file.seek(offset)
            yield self._file.read(length)


class _Description:
    """What the file says about each region, and about itself."""

    def __init__(self, job: RegionsJob) -> None:
        self._job = job
        self._classes = {card.value: card for card in job.classes}
        size = Size(job.region.x1, job.region.y1)
        self._earth = EarthPlacement(job.georeference, size) if on_earth(job.georeference) else None

    def feature(self, outline: Outline) -> bytes | None:
        """One feature as a line of JSON; None if no corner of it has a place on the map."""
        polygon = self._level0(outline.polygon)
        parts = [polygon] if self._earth is None else self._earth.place(polygon)
        if not parts:
            return None
        identity = bytes([outline.value]) + shapely.to_wkb(polygon, byte_order=1)
        content = {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, identity.hex())),
            "geometry": self._geometry(parts),
            "properties": self._properties(outline.value, int(polygon.area)),
        }
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def collection(self, summary: RegionsSummary) -> dict[str, Any]:
        """The file's own members."""
        job = self._job
        frame = "longitude and latitude (WGS 84)" if self._earth else f"{job.frame} pixels, origin top left, y down"
        content: dict[str, Any] = {
            "frame": frame,
            "minimum_area_px": summary.minimum_area * job.mask_downsample**2,
            "dropped_px": summary.dropped_pixels * job.mask_downsample**2,
            "regions": summary.regions,
        }
        if job.bounds is not None and self._earth is None:
            # Viewers that crop a slide to its scanner bounds subtract this from every coordinate.
            content["bounds_offset_px"] = job.bounds[:2]
        return content

    def _level0(self, polygon: shapely.Polygon) -> shapely.Polygon:
        """From mask pixels to level-0 pixels; the last mask pixel may hang over the image and is cut."""
        region, factor = self._job.region, self._job.mask_downsample
        end = np.array([region.x1, region.y1], dtype=np.float64)
        return shapely.transform(
            polygon, lambda corners: np.minimum(corners * factor + np.array([region.x, region.y]), end)
        )

    def _geometry(self, parts: list[shapely.Polygon]) -> dict[str, Any]:
        polygons = [[self._ring(ring) for ring in (part.exterior, *part.interiors)] for part in parts]
        if len(polygons) == 1:
            return {"type": "Polygon", "coordinates": polygons[0]}
        return {"type": "MultiPolygon", "coordinates": polygons}

    def _ring(self, ring: Any) -> list[list[float]]:
        corners = shapely.get_coordinates(ring)
        if self._earth is None:
            return corners.astype(np.int64).tolist()  # type: ignore[no-any-return]
        return np.round(corners, self._earth.decimals).tolist()  # type: ignore[no-any-return]

    def _properties(self, value: int, pixels: int) -> dict[str, Any]:
        card = self._classes[value]
        measurements: dict[str, float] = {"Area px^2": pixels}
        size, unit = area(pixels, self._job.spacing)
        if unit != "px":
            measurements["Area µm^2" if unit == "um2" else "Area m^2"] = size
        return {
            "objectType": "annotation",
            "classification": {"name": card.name, "color": list(card.color)},
            "isLocked": True,
            "class": card.name,
            "value": value,
            "color": list(card.color),
            "area": size,
            "area_unit": unit,
            "measurements": measurements,
        }


def _write_collection(path: Path, members: dict[str, Any], spool: _Spool) -> None:
    with path.open("wb") as file:
        head = json.dumps({"type": "FeatureCollection", "foveate": members}, ensure_ascii=False)
        file.write(head[:-1].encode() + b', "features": [')
        for index, feature in enumerate(spool.features()):
            file.write((b",\n" if index else b"\n") + feature)
        file.write(b"\n]}\n")


def _communicate(child: subprocess.Popen[str], request: str, check: Callable[[], None]) -> str:
    unsent: str | None = request
    while True:
        try:
            return child.communicate(unsent, timeout=_POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            unsent = None
            check()


def _main() -> int:
    try:
        summary = write_regions(RegionsJob.model_validate_json(sys.stdin.read()))
    except FoveateError as error:
        answer = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        sys.stdout.write(json.dumps(answer))
        return 1
    sys.stdout.write(summary.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(_main())

"""Regions of a mask as lines of GeoJSON: QuPath's conventions in level-0 pixels, or RFC 7946."""

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from foveate.schema import ClassCard, SpacingInfo
from raster.decimals import point_text
from raster.earth import EarthPlacement, on_earth
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.rings import Outlines, areas_of
from raster.statistics import area
from raster.walks import Indices

_NAMESPACE = uuid.UUID("6f3c1d0e-52f4-5c55-9b0c-8f5d3a1f7e21")
"""Of the regions' ids: the uuid5 of a class and the corners in level-0 pixels."""
_MOST_CORNERS = 1 << 17
"""Of rings that are printed at once: what is between takes a hundred bytes for each."""


class RegionsJob(BaseModel):
    """All that the polygons of one mask depend on.

    `georeference`, `spacing` and `bounds` are the image's, at level 0; `region` is what the mask covers of it, in
    level-0 pixels, and the side of a mask pixel is `mask_downsample` of those. Components below `minimum_area` [mask
    pixels] are left out, and if more than `maximum_regions` remain, the minimum rises until no more do.
    """

    model_config = ConfigDict(frozen=True)

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

    @property
    def mask_size(self) -> Size:
        m = self.mask_downsample
        return Size(-(-self.region.width // m), -(-self.region.height // m))


@dataclass(frozen=True)
class Feature:
    """One region as a line of JSON, in parts that follow each other, and its pixels in the mask.

    One region may be most of a mask, and its text is not put together before it is in the file.
    """

    parts: Sequence[bytes]
    pixels: int


class Features:
    """What the file says about each region."""

    def __init__(self, job: RegionsJob) -> None:
        self._job = job
        self._of_class = {card.value: _properties_of(card) for card in job.classes}
        self.earth = (
            EarthPlacement(job.georeference, Size(job.region.x1, job.region.y1)) if on_earth(job.georeference) else None
        )

    def of(self, outlines: Outlines) -> Iterator[Feature]:
        """One each in their order, but for regions of which nothing has a place on the map."""
        if not len(outlines):
            return
        corners, starts, firsts = self._level0(outlines.rings.corners), outlines.rings.starts, outlines.firsts
        even = self.earth is None or self.earth.even
        geometries = self._together(corners, starts, firsts) if even else self._one_by_one(corners, starts, firsts)
        names = self._names(outlines.values, corners, starts, firsts)
        pixels = outlines.pixels.tolist()
        areas = pixels
        if self._job.mask_downsample > 1:
            areas = np.add.reduceat(areas_of(corners, starts), firsts[:-1]).tolist()
        for value, name, geometry, own, size in zip(
            outlines.values.tolist(), names, geometries, pixels, areas, strict=True
        ):
            if geometry:
                head, tail = b'{"type":"Feature","id":"%s","geometry":' % name, self._properties(value, size)
                yield Feature([head, *geometry, b',"properties":%s}' % tail], own)

    def _level0(self, corners: NDArray[np.int32]) -> NDArray[np.int64]:
        """From mask pixels to level-0 pixels; the last mask pixel may hang over the image and is cut."""
        region, factor = self._job.region, self._job.mask_downsample
        placed = corners.astype(np.int64) * factor + np.array([region.x, region.y])
        cut: NDArray[np.int64] = np.minimum(placed, np.array([region.x1, region.y1]))
        return cut

    def _together(self, corners: NDArray[np.int64], starts: Indices, firsts: Indices) -> Iterator[list[bytes]]:
        """The geometry of each region; many coordinates are computed and printed at once."""
        rings = [ring for part in self._groups(starts) for ring in self._printed(corners, starts[part])]
        for a, b in pairwise(firsts.tolist()):
            yield [b'{"type":"Polygon","coordinates":[', *rings[a : b - 1], rings[b - 1][:-1], b"]}"]

    @staticmethod
    def _groups(starts: Indices) -> Iterator[slice]:
        """Rings that are printed at once, as a slice of `starts` with the end of the last one."""
        first = 0
        while first < len(starts) - 1:
            end = max(first + 1, int(np.searchsorted(starts, starts[first] + _MOST_CORNERS, "right")) - 1)
            yield slice(first, end + 1)
            first = end

    def _printed(self, corners: NDArray[np.int64], starts: Indices) -> Iterator[bytes]:
        """Each ring, closed, as a JSON array and a comma."""
        own, starts, decimals = corners[starts[0] : starts[-1]], starts - starts[0], 0
        closed = np.insert(np.arange(len(own)), starts[1:], starts[:-1])
        points, starts = own[closed], starts + np.arange(len(starts))
        if self.earth is not None:
            points, starts = self.earth.place_rings(points, starts)
            decimals = self.earth.decimals
        text, ends = point_text(points, decimals)
        for a, b in pairwise(ends[starts].tolist()):
            yield b"[%s]," % text[a : b - 1]

    def _one_by_one(self, corners: NDArray[np.int64], starts: Indices, firsts: Indices) -> Iterator[list[bytes]]:
        """The geometry of each region, whose polygon may change its shape on the map; empty: it has no place there."""
        assert self.earth is not None
        decimals = self.earth.decimals
        rings = np.split(corners, starts[1:-1])
        for a, b in pairwise(firsts.tolist()):
            polygons = [
                [
                    np.round(shapely.get_coordinates(ring), decimals).tolist()
                    for ring in (part.exterior, *part.interiors)
                ]
                for part in self.earth.place(shapely.Polygon(rings[a], rings[a + 1 : b]))
            ]
            kind, coordinates = ("Polygon", polygons[0]) if len(polygons) == 1 else ("MultiPolygon", polygons)
            yield [_json({"type": kind, "coordinates": coordinates})] if polygons else []

    def _names(
        self, values: NDArray[np.uint8], corners: NDArray[np.int64], starts: Indices, firsts: Indices
    ) -> Iterator[bytes]:
        """The id of each region: uuid5 of its class and, for each ring, the number of its corners and these."""
        named = np.insert(corners.ravel(), 2 * starts[:-1], np.diff(starts)).astype("<i8").data
        bounds = (2 * starts[firsts] + firsts).tolist()
        for value, (a, b) in zip(values.tolist(), pairwise(bounds), strict=True):
            name = hashlib.sha1(_NAMESPACE.bytes + bytes([value]), usedforsecurity=False)
            name.update(named[a:b])
            yield str(uuid.UUID(bytes=name.digest()[:16], version=5)).encode()

    def _properties(self, value: int, pixels: int) -> bytes:
        """A JSON object: what the class alone says, which is printed once, and the area."""
        size, unit = area(pixels, self._job.spacing)
        measured: dict[str, float] = {"Area px^2": pixels}
        if unit != "px":
            measured["Area µm^2" if unit == "um2" else "Area m^2"] = size
        own = _json({"area": size, "area_unit": unit, "measurements": measured})
        return self._of_class[value][:-1] + b"," + own[1:]


def _properties_of(card: ClassCard) -> bytes:
    """What the regions of a class have in common, as a JSON object."""
    return _json(
        {
            "objectType": "annotation",
            "classification": {"name": card.name, "color": list(card.color)},
            "isLocked": True,
            "class": card.name,
            "value": card.value,
            "color": list(card.color),
        }
    )


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

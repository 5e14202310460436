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
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.placement import EarthPlacement, on_earth
from raster.rings import Outline, area_of
from raster.statistics import area

_NAMESPACE = uuid.UUID("6f3c1d0e-52f4-5c55-9b0c-8f5d3a1f7e21")
"""Of the regions' ids: the uuid5 of a class and the corners in level-0 pixels."""

_BATCH_CORNERS = 1 << 17


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
    """One region as a line of JSON, and its pixels in the mask."""

    line: bytes
    pixels: int


class Features:
    """What the file says about each region."""

    def __init__(self, job: RegionsJob) -> None:
        self._job = job
        self._classes = {card.value: card for card in job.classes}
        self.earth = (
            EarthPlacement(job.georeference, Size(job.region.x1, job.region.y1)) if on_earth(job.georeference) else None
        )

    def of(self, outlines: Iterator[Outline]) -> Iterator[Feature]:
        """One each in their order, but for regions of which no corner has a place on the map."""
        batch: list[Outline] = []
        corners = 0
        for outline in outlines:
            batch.append(outline)
            corners += sum(map(len, outline.rings))
            if corners > _BATCH_CORNERS:
                yield from self._batch(batch)
                batch, corners = [], 0
        if batch:
            yield from self._batch(batch)

    def _batch(self, outlines: Sequence[Outline]) -> Iterator[Feature]:
        """The coordinates of all of them are computed and printed together."""
        rings = [ring for outline in outlines for ring in outline.rings]
        starts = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])])
        corners = self._level0(np.concatenate(rings))
        texts = None if self.earth is not None and not self.earth.even else self._texts(corners, starts)
        first = 0
        for outline in outlines:
            end = first + len(outline.rings)
            own = [corners[a:b] for a, b in zip(starts[first:end], starts[first + 1 : end + 1], strict=True)]
            if texts is not None:
                geometry = b'{"type":"Polygon","coordinates":[' + b",".join(texts[first:end]) + b"]}"
            else:
                geometry = self._by_itself(own)
            if geometry:
                yield Feature(self._line(outline, own, geometry), outline.pixels)
            first = end

    def _level0(self, corners: NDArray[np.int32]) -> NDArray[np.int64]:
        """From mask pixels to level-0 pixels; the last mask pixel may hang over the image and is cut."""
        region, factor = self._job.region, self._job.mask_downsample
        placed = corners.astype(np.int64) * factor + np.array([region.x, region.y])
        cut: NDArray[np.int64] = np.minimum(placed, np.array([region.x1, region.y1]))
        return cut

    def _texts(self, corners: NDArray[np.int64], starts: NDArray[np.int64]) -> list[bytes]:
        """Each ring as JSON."""
        lengths = np.diff(starts)
        closing = np.arange(starts[-1] + len(lengths)) - np.repeat(np.arange(len(lengths)), lengths + 1)
        starts = starts + np.arange(len(starts))
        closing[starts[1:] - 1] -= lengths
        points, decimals = corners[closing], 0
        if self.earth is not None:
            points, starts = self.earth.place_rings(points, starts)
            decimals = self.earth.decimals
        text, ends = point_text(points, decimals)
        places = ends[starts].tolist()
        return [b"[" + text[a : b - 1] + b"]" for a, b in pairwise(places)]

    def _by_itself(self, rings: list[NDArray[np.int64]]) -> bytes:
        """The geometry of a region whose polygon may change its shape on the map; empty: it has no place there."""
        assert self.earth is not None
        parts = self.earth.place(shapely.Polygon(rings[0], rings[1:]))
        decimals = self.earth.decimals
        polygons = [
            [np.round(shapely.get_coordinates(ring), decimals).tolist() for ring in (part.exterior, *part.interiors)]
            for part in parts
        ]
        if not polygons:
            return b""
        kind, coordinates = ("Polygon", polygons[0]) if len(polygons) == 1 else ("MultiPolygon", polygons)
        return json.dumps({"type": kind, "coordinates": coordinates}, allow_nan=False, separators=(",", ":")).encode()

    def _line(self, outline: Outline, rings: list[NDArray[np.int64]], geometry: bytes) -> bytes:
        name = hashlib.sha1(_NAMESPACE.bytes + bytes([outline.value]), usedforsecurity=False)
        for ring in rings:
            name.update(len(ring).to_bytes(8, "little") + ring.astype("<i8").tobytes())
        identity = uuid.UUID(bytes=name.digest()[:16], version=5)
        whole = self._job.mask_downsample == 1
        pixels = outline.pixels if whole else sum(area_of(ring) for ring in rings)
        properties = json.dumps(self._properties(outline.value, pixels), ensure_ascii=False, separators=(",", ":"))
        return b'{"type":"Feature","id":"%s","geometry":%s,"properties":%s}' % (
            str(identity).encode(),
            geometry,
            properties.encode(),
        )

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

"""GeoJSON polygons as a label image, rasterised window by window: a pixel belongs to what its centre lies in.

Coordinates are level-0 pixels as QuPath writes them or, for images with a place on Earth, longitude and latitude
(RFC 7946). Where polygons overlap, the later one in the file lies on top. Holes are kept.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyproj
import rasterio.transform
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.control import GroundControlPoint
from rasterio.features import rasterize

from foveate.errors import ImageUnreadable
from foveate.schema import ImageInfo, LevelInfo
from raster.content import local_path
from raster.earth import on_earth
from raster.geometry import Region
from raster.georeference import Georeference
from raster.image import Pixels

__all__ = ["PolygonImage", "Polygons", "is_geojson", "read_polygons"]

_TILE = 512
_SMALLEST_SIDE = 512
_LARGEST_FILE = 2**30


@dataclass(frozen=True)
class Polygons:
    """The polygons of one file in level-0 pixels, in its order; `names[k]` is the class of `shapes[k]`."""

    shapes: tuple[shapely.Geometry, ...]
    names: tuple[str, ...]


class PolygonImage:
    """One band of numbers: `numbers[k]` in polygon k, `background` elsewhere; a pyramid that is made on demand.

    `like` describes the image that the polygons lie on: its size is theirs. A reduced level holds what lies at the
    centres of its pixels. `numbers` fit `dtype` (uint8, uint16 or int32).
    """

    def __init__(
        self, polygons: Polygons, numbers: list[int], background: int, like: ImageInfo, dtype: str = "uint8"
    ) -> None:
        self._shapes, self._numbers, self._background, self._dtype = polygons.shapes, numbers, background, dtype
        self._tree = shapely.STRtree(list(polygons.shapes))
        self._info = _described(like, dtype)

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        scale, _ = self._info.levels[level].downsample
        box = shapely.box(region.x * scale, region.y * scale, region.x1 * scale, region.y1 * scale)
        met = np.sort(self._tree.query(box))
        transform = Affine(scale, 0, region.x * scale, 0, scale, region.y * scale)
        values = np.full(region.size.shape, self._background, self._dtype)
        if len(met):
            burnt = ((self._shapes[k], self._numbers[k]) for k in met)
            rasterize(burnt, out=values, transform=transform)
        return Pixels(values[..., None], None)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None

    def close(self) -> None:
        """Nothing is held but memory."""


def is_geojson(path: Path) -> bool:
    """Whether the file's first character opens a JSON object or array.

    ImageMissing where there is no file, ImageUnreadable where it cannot be opened.
    """
    try:
        with local_path(path).open("rb") as file:
            return file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")
    except OSError as error:
        raise ImageUnreadable(f"{path} cannot be read: {error.strerror}", hint="Name a label file there.") from error


def read_polygons(path: Path, like: ImageInfo) -> Polygons:
    """The polygons of a FeatureCollection, a Feature or a list of Features, brought to level-0 pixels of `like`.

    ImageUnreadable names the file and the feature that is no polygon, has no class name or cannot be placed, and the
    file of which no polygon at all lies on the image.
    """
    to_pixels = _Unplacing.of(like)
    shapes, names = [], []
    for index, feature in enumerate(_features(path)):
        what = f"{path}: feature {index}"
        shape = _polygon(feature, what)
        shapes.append(shape if to_pixels is None else to_pixels.shape(shape, what))
        names.append(_class_name(feature, what))
    image = shapely.box(0, 0, like.width, like.height)
    if shapes and not shapely.intersects(shapes, image).any():
        raise ImageUnreadable(
            f"{path}: none of its {len(shapes)} polygons lies on {like.name} of {like.width} x {like.height} px",
            hint="Pair images with their own polygons: level-0 pixels, longitude and latitude where it has a place.",
        )
    return Polygons(tuple(shapes), tuple(names))


def _features(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.stat().st_size > _LARGEST_FILE:
        raise ImageUnreadable(f"{path} is larger than 1 GiB", hint="Cut the polygons into files, or rasterise them.")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ImageUnreadable(f"{path} is no GeoJSON: {error}", hint="Export the polygons again.") from error
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, dict):
        content = [content]
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise ImageUnreadable(f"{path} is no GeoJSON: it lists no features", hint="Export the polygons again.")
    yield from content


def _polygon(feature: Mapping[str, Any], what: str) -> shapely.Geometry:
    geometry = feature.get("geometry")
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise ImageUnreadable(
            f"{what} is {'without geometry' if kind is None else f'a {kind}'}; only polygons label pixels",
            hint="Remove it, or draw it as an area.",
        )
    try:
        shape = shapely.geometry.shape(geometry)
    except (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ImageUnreadable(f"{what} has broken coordinates: {error}", hint="Draw it again.") from error
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise ImageUnreadable(f"{what} has coordinates that are no numbers", hint="Draw it again.")
    return shape


def _class_name(feature: Mapping[str, Any], what: str) -> str:
    """QuPath's classification, whose derived classes are lists of names in later versions; else `class` or `name`."""
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        classification = ": ".join(map(str, names)) if isinstance(names, list) else classification.get("name")
    for name in (classification, properties.get("class"), properties.get("name")):
        if isinstance(name, str) and name:
            return name
    raise ImageUnreadable(f"{what} has no class", hint="Set its classification in QuPath, or a property `class`.")


class _Unplacing:
    """Longitude and latitude to level-0 pixels of a georeferenced image."""

    def __init__(self, georeference: Georeference) -> None:
        assert georeference.crs is not None
        self._to_ground = pyproj.Transformer.from_crs("OGC:CRS84", georeference.crs, always_xy=True)
        if georeference.gcps:
            points = [GroundControlPoint(col=c, row=r, x=x, y=y, z=z) for c, r, x, y, z in georeference.gcps]
            self._to_pixels: Any = rasterio.transform.GCPTransformer(points)
        else:
            assert georeference.transform is not None
            self._to_pixels = rasterio.transform.AffineTransformer(Affine(*georeference.transform))

    @classmethod
    def of(cls, like: ImageInfo) -> Self | None:
        georeference = Georeference.of(like, like.spacing)
        return cls(georeference) if on_earth(georeference) else None

    def shape(self, shape: shapely.Geometry, what: str) -> shapely.Geometry:
        try:
            return shapely.transform(shapely.force_2d(shape), self._pixels)
        except ProjError as error:
            raise ImageUnreadable(
                f"{what} cannot be placed on the image: {error}",
                hint="Polygons on a georeferenced image are longitude and latitude (RFC 7946).",
            ) from error

    def _pixels(self, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = self._to_ground.transform(degrees[:, 0], degrees[:, 1])
        if not np.isfinite([x, y]).all():
            raise ProjError("a corner has no place in the image's system")
        rows, columns = self._to_pixels.rowcol(x, y, op=float)
        return np.stack([np.asarray(columns, np.float64), np.asarray(rows, np.float64)], axis=1)


def _described(like: ImageInfo, dtype: str) -> ImageInfo:
    depth = max(0, math.ceil(math.log2(max(like.width, like.height) / _SMALLEST_SIDE)))
    levels = [
        LevelInfo(
            width=math.ceil(like.width / 2**k),
            height=math.ceil(like.height / 2**k),
            downsample=(2.0**k, 2.0**k),
            tile=(_TILE, _TILE),
        )
        for k in range(depth + 1)
    ]
    return ImageInfo(
        name=like.name,
        kind="picture",
        driver="GeoJSON",
        reader="rasterio",
        width=like.width,
        height=like.height,
        levels=levels,
        bands=["gray"],
        dtype=dtype,
        spacing=None,
        crs=None,
        transform=None,
    )

"""Scratch GeoTIFFs, and the cloud-optimised copy that a user gets."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine

from foveate import __version__
from raster.geometry import Size
from raster.georeference import Georeference
from raster.overviews import TILE
from raster.whole_file import disk_full, whole_file

CACHE_BYTES = 48 * 2**20
"""GDAL's block cache, one for the process, read or write; left alone it takes 5 % of the machine's memory."""

_DEFLATE_LEVEL = 5
"""Half the time of the default, 6, for masks that are a twelfth larger."""

_ROOT = "<PAMDataset>\n"
_CLASSIC_LIMIT = 4_000_000_000


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Run a block that writes with GDAL: no sidecar of its own, our overviews seen, a failed write is DiskFull."""
    options = {
        "GDAL_PAM_ENABLED": "NO",
        "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE",
        "GTIFF_POINT_GEO_IGNORE": "FALSE",
        "GDAL_CACHEMAX": CACHE_BYTES,
    }
    with rasterio.Env(**options), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            yield
        except RasterioError as error:
            raise disk_full(path, str(error.__cause__ or error)) from error


@contextmanager
def reading_back(path: Path) -> Iterator[Any]:
    """A raster that we wrote, open for reading; it may have no place on Earth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            yield dataset


def needs_bigtiff(size: Size, bytes_per_pixel: int) -> bool:
    """Whether the pixels and their overviews may pass 4 GB before compression; what compression saves is not known."""
    return size.area * bytes_per_pixel * 4 / 3 > _CLASSIC_LIMIT


def scratch_profile(size: Size, dtype: str, count: int, nodata: float) -> dict[str, Any]:
    """Creation options of a tiled, sparse scratch GeoTIFF; ZSTD level 1 is the fastest (service-facts.md 6)."""
    return {
        "driver": "GTiff",
        "width": size.width,
        "height": size.height,
        "count": count,
        "dtype": dtype,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "ZSTD",
        "zstd_level": 1,
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
    }


def georeferencing(georeference: Georeference) -> dict[str, Any]:
    """Creation options that place a raster."""
    options: dict[str, Any] = {}
    if georeference.crs is not None:
        options["crs"] = CRS.from_wkt(georeference.crs)
    if georeference.gcps:
        # rasterio writes none without a CRS, but takes an empty one, of which nothing gets into the file.
        options.setdefault("crs", CRS())
        # GDAL adds half a pixel to the control points of a PixelIsPoint file when it writes, and again when it reads.
        shift = 1.0 if _is_point(georeference) else 0.0
        options["gcps"] = [
            GroundControlPoint(col=col - shift, row=row - shift, x=x, y=y, z=z)
            for col, row, x, y, z in georeference.gcps
        ]
    elif georeference.transform is not None:
        options["transform"] = Affine(*georeference.transform)
    return options


def place_tags(georeference: Georeference) -> dict[str, str]:
    """TIFF tags: software, PixelIsArea or Point, and the pixels per centimetre of slides."""
    tags = {"TIFFTAG_SOFTWARE": f"Foveate {__version__}"}
    if georeference.crs is not None and georeference.area_or_point is not None:
        # Without a CRS the tag would make GDAL invent a local one.
        tags["AREA_OR_POINT"] = georeference.area_or_point
    if georeference.spacing_um is not None:
        x, y = georeference.spacing_um
        tags |= {
            "TIFFTAG_XRESOLUTION": repr(10000 / x),
            "TIFFTAG_YRESOLUTION": repr(10000 / y),
            "TIFFTAG_RESOLUTIONUNIT": "3",
        }
    return tags


@contextmanager
def cog_copy(scratch: Path, path: Path, *, bigtiff: bool) -> Iterator[Path]:
    """Copy `scratch` and the overviews beside it to a COG; the block may read the copy back before it gets its name."""
    with whole_file(path) as partial:
        rasterio.shutil.copy(
            str(scratch),
            str(partial),
            driver="COG",
            COMPRESS="DEFLATE",
            LEVEL=_DEFLATE_LEVEL,
            PREDICTOR="NO",
            BLOCKSIZE=TILE,
            OVERVIEWS="FORCE_USE_EXISTING",
            BIGTIFF="YES" if bigtiff else "NO",
            SPARSE_OK="YES",
            NUM_THREADS="ALL_CPUS",  # to compress; tiles are written in their order
        )
        yield partial


def lost_crs(copy: Path, georeference: Georeference) -> ElementTree.Element | None:
    """The CRS as GDAL's auxiliary metadata name it, if the written file does not hold it; None: it does.

    GeoTIFF's keys have no place for some (a rotated pole, a view from space), and GDAL leaves these out without a word.
    """
    if georeference.crs is None:
        return None
    with reading_back(copy) as dataset:
        held = dataset.gcps[1] if georeference.gcps else dataset.crs
    if held == CRS.from_wkt(georeference.crs):
        return None
    if not georeference.gcps:
        # Without dataAxisToSRSAxisMapping x is the longitude, as it is to rasterio.
        element = ElementTree.Element("SRS")
        element.text = georeference.crs
        return element
    element = ElementTree.Element("GCPList", Projection=georeference.crs)
    for index, (column, row, *place) in enumerate(georeference.gcps, 1):
        names = {"Pixel": column, "Line": row} | dict(zip("XYZ", place, strict=True))
        ElementTree.SubElement(
            element, "GCP", {"Id": str(index)} | {name: repr(value) for name, value in names.items()}
        )
    return element


def with_crs(metadata: str, crs: ElementTree.Element | None) -> str:
    """GDAL's auxiliary metadata, as XML of ours, and in them the CRS, if there is one."""
    if crs is None:
        return metadata
    ElementTree.indent(crs, level=1)
    return metadata.replace(_ROOT, f"{_ROOT}  {ElementTree.tostring(crs, encoding='unicode')}\n", 1)


def write_lost_crs(path: Path, crs: ElementTree.Element | None) -> None:
    """Write the sidecar of a raster of ours that has none but for a CRS that it could not hold. Raises DiskFull."""
    if crs is not None:
        with whole_file(path.with_name(path.name + ".aux.xml")) as partial:
            partial.write_text(with_crs(f"{_ROOT}</PAMDataset>\n", crs), encoding="utf-8")


def _is_point(georeference: Georeference) -> bool:
    return georeference.crs is not None and georeference.area_or_point == "Point"

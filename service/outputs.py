"""The files of a result as OGC outputs: their ids, media types and digests."""

import hashlib
import json
from pathlib import Path
from typing import Any

from foveate.schema import ResultFile

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"

OUTPUT_IDS = {
    "mask.tif": "mask",
    "mask.tif.aux.xml": "mask-sidecar",
    "foveation.tif": "foveation",
    "overlay.png": "overlay",
    "regions.geojson": "regions",
    "statistics.json": "statistics",
    "manifest.json": "manifest",
    "uncertainty.tif": "uncertainty",
    "probabilities.zarr.zip": "probabilities",
}
"""File name to output id."""

ON_REQUEST = ("uncertainty", "probabilities")
"""The values of the option `outputs`, which are ids, too."""

OUTPUT_TITLES = {
    "mask": "Class of every pixel; 255 is no data or not examined",
    "mask-sidecar": "Class names for GDAL and QGIS",
    "foveation": "Per cell: mean field of view in 0..1, and the chosen one",
    "overlay": "The mask over the image, for eyes",
    "regions": "The classes as polygons: pixels for QuPath, or longitude and latitude",
    "statistics": "Pixels, shares and areas of the classes",
    "manifest": "What was done, with which image, model and parameters",
    "uncertainty": "On request: entropy of the class probabilities, 0 to 1",
    "probabilities": "On request: the class probabilities, a zarr v3 store in one file, for zarr's ZipStore",
}

_TYPES = {
    ".tif": _COG,
    ".png": "image/png",
    ".geojson": "application/geo+json",
    ".json": "application/json",
    ".zip": "application/zip",
}

__all__ = ["ON_REQUEST", "OUTPUT_IDS", "OUTPUT_TITLES", "file_sha256", "media_type", "output_schemas", "result_file"]


def media_type(name: str) -> str:
    return "application/xml" if name.endswith(".xml") else _TYPES.get(Path(name).suffix, "application/octet-stream")


def output_schemas() -> dict[str, Any]:
    """The `outputs` of the process description."""
    return {
        output: {
            "title": OUTPUT_TITLES[output],
            "schema": {"type": "string", "contentMediaType": media_type(name), "contentEncoding": "binary"},
        }
        for name, output in OUTPUT_IDS.items()
    }


def result_file(path: Path, href: str) -> ResultFile:
    """The link to a result's file; its digest stands in the manifest, but for the manifest's own."""
    return ResultFile(
        href=href, type=media_type(path.name), title=path.name, length=path.stat().st_size, sha256=_listed_sha256(path)
    )


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed_sha256(path: Path) -> str:
    manifest = json.loads((path.parent / "manifest.json").read_bytes())
    listed = manifest["files"].get(path.name)
    return file_sha256(path) if listed is None else str(listed["sha256"])

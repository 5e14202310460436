"""One example of each document, for the OpenAPI description; a test validates them against the wire schema."""

from typing import Any

IMAGE_ID = "4f1c0d2e9b7a63518c0d"
JOB_ID = "b52d9a61f0c3487e1a2b"
_BASE = "http://127.0.0.1:8000"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

IMAGE: dict[str, Any] = {
    "id": IMAGE_ID,
    "sha256": _SHA256,
    "bytes": 12582912,
    "created": "2026-01-05T09:59:30Z",
    "info": {
        "name": "scene.tif",
        "kind": "scene",
        "driver": "GTiff",
        "reader": "rasterio",
        "width": 8192,
        "height": 8192,
        "levels": [{"width": 8192, "height": 8192, "downsample": [1.0, 1.0], "tile": [512, 512]}],
        "bands": ["red", "green", "blue"],
        "dtype": "uint8",
        "spacing": {"x": 0.5, "y": 0.5, "unit": "m", "origin": "transform and CRS"},
        "crs": 'PROJCS["WGS 84 / UTM zone 40N",…]',
        "transform": [0.5, 0.0, 300000.0, 0.0, -0.5, 2790000.0],
        "gcps": [],
        "area_or_point": "Area",
        "nodata": None,
        "validity": "none",
        "bounds": None,
        "frame": "level-0",
        "warnings": [],
    },
}

EXECUTE: dict[str, Any] = {
    "defaults": {"summary": "The only bundle that fits", "value": {"inputs": {"image": IMAGE_ID}}},
    "options": {
        "summary": "A region, a bundle by name, a link instead of an id",
        "value": {
            "inputs": {
                "image": {"href": f"{_BASE}/images/{IMAGE_ID}"},
                "model": "landcover",
                "roi": [0, 0, 4096, 4096],
                "overlap": 0.25,
                "mask_downsample": 2,
            },
            "response": "document",
        },
    },
}

_SELF = {"href": f"{_BASE}/jobs/{JOB_ID}", "rel": "self", "type": "application/json", "title": "this job"}
_PREVIEW = {
    "href": f"{_BASE}/jobs/{JOB_ID}/preview",
    "rel": "preview",
    "type": "image/tiff; application=geotiff; profile=cloud-optimized",
    "title": "the mask at a coarse scale",
}
ACCEPTED: dict[str, Any] = {
    "jobID": JOB_ID,
    "processID": "segment",
    "type": "process",
    "status": "accepted",
    "message": "waiting for a worker",
    "created": "2026-01-05T10:00:00Z",
    "updated": "2026-01-05T10:00:00Z",
    "progress": 0,
    "image": IMAGE_ID,
    "imageName": "scene.tif",
    "model": "landcover",
    "links": [_SELF],
}
RUNNING = {
    **ACCEPTED,
    "status": "running",
    "message": "refining, preview ready",
    "started": "2026-01-05T10:00:01Z",
    "updated": "2026-01-05T10:00:20Z",
    "progress": 41,
    "links": [_SELF, _PREVIEW],
}
DISMISSED = {
    **RUNNING,
    "status": "dismissed",
    "message": "dismissed",
    "finished": "2026-01-05T10:00:21Z",
    "links": [_SELF],
}
JOBS = {
    "jobs": [RUNNING],
    "links": [{"href": f"{_BASE}/jobs", "rel": "self", "type": "application/json", "title": "these jobs"}],
}
RESULTS: dict[str, Any] = {
    "mask": {
        "href": f"{_BASE}/jobs/{JOB_ID}/results/mask.tif",
        "rel": "result",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "title": "mask.tif",
        "length": 8912345,
        "sha256": _SHA256,
    }
}

CARD: dict[str, Any] = {
    "format": 1,
    "name": "landcover",
    "version": "1",
    "licence": "CC0-1.0",
    "network": {"library": "smp", "architecture": "Unet", "encoder": "efficientnet-b0", "in_channels": 3},
    "patch_size": 256,
    "fovs": [256, 512, 1024],
    "foveation": {"downsample": 32, "hidden": 16},
    "mapping": "implicit",
    "policy": "mean",
    "input": {
        "kind": "scene",
        "bands": ["red", "green", "blue"],
        "dtype": "uint8",
        "value_scale": 255.0,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "spacing": None,
        "spacing_unit": None,
        "spacing_range": None,
    },
    "classes": [{"value": 0, "name": "water", "color": [40, 90, 200]}],
    "provenance": {"data": "…"},
}


def shown(example: Any, description: str) -> dict[str, Any]:
    """The OpenAPI entry of a JSON answer with `example`."""
    return {"description": description, "content": {"application/json": {"example": example}}}

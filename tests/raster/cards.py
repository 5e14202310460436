"""Small descriptions of images and bundles, for tests that need no file."""

from typing import Any

from foveate.schema import BundleCard, ImageInfo, LevelInfo, SpacingInfo


def make_info(**changes: Any) -> ImageInfo:
    """A 1000 x 800 RGB picture of unknown spacing."""
    fields: dict[str, Any] = {
        "name": "image.tif",
        "kind": "picture",
        "driver": "GTiff",
        "reader": "rasterio",
        "width": 1000,
        "height": 800,
        "levels": [LevelInfo(width=1000, height=800, downsample=(1.0, 1.0), tile=(256, 256))],
        "bands": ["red", "green", "blue"],
        "dtype": "uint8",
        "spacing": None,
        "crs": None,
        "transform": None,
    }
    return ImageInfo(**(fields | changes))


def micrometres(x: float, y: float | None = None) -> SpacingInfo:
    return SpacingInfo(x=x, y=x if y is None else y, unit="um", origin="the file")


def metres(side: float) -> SpacingInfo:
    return SpacingInfo(x=side, y=side, unit="m", origin="transform and CRS")


def make_card(**changes: Any) -> BundleCard:
    """A bundle for H&E at 0.62 µm; `kind`, `bands`, `dtype`, `value_scale` and `spacing` change its input."""
    names = changes.pop("bands", ["red", "green", "blue"])
    spacing = changes.pop("spacing", 0.62)
    inputs = {
        "kind": changes.pop("kind", "slide"),
        "bands": names,
        "dtype": changes.pop("dtype", "uint8"),
        "value_scale": changes.pop("value_scale", 255.0),
        "mean": [0.5] * len(names),
        "std": [0.25] * len(names),
        "spacing": spacing,
        "spacing_unit": changes.pop("spacing_unit", None if spacing is None else "um"),
        "spacing_range": changes.pop("spacing_range", None if spacing is None else (0.15, 1.3)),
    }
    fields: dict[str, Any] = {
        "format": 1,
        "name": "glands",
        "version": "1",
        "licence": "Apache-2.0",
        "network": {"library": "foveate", "architecture": "linear", "in_channels": len(names)},
        "patch_size": 64,
        "fovs": [64, 128, 256],
        "foveation": {"downsample": 32, "hidden": 8},
        "mapping": "implicit",
        "policy": "mean",
        "input": inputs,
        "classes": [{"value": 0, "name": "background", "color": (0, 0, 0)}],
        "provenance": {},
    }
    return BundleCard(**(fields | changes))

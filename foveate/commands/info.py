"""`foveate info`: what a file is, and which bundles take it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from foveate import options as spelled
from foveate.output import JsonFlag, error_document, print_result
from foveate.resolve import resolve
from foveate.schema import ImageInfo

_PIPE_WIDTH = 10_000
"""A pipe has no width: nothing is folded there."""


def register(app: typer.Typer) -> None:
    app.command("info", help="Say what an image is, and how each model fits it.")(info)


def info(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A slide, a scene or a picture; a DICOM folder.")],
    spacing: spelled.SpacingOption = None,
    bands: spelled.BandsOption = None,
    rescale: spelled.RescaleOption = None,
    force: spelled.ForceOption = False,
    as_json: JsonFlag = False,
) -> None:
    options = spelled.segment_options(spacing=spacing, bands=bands, rescale=rescale, force=force)
    settings = resolve("jobs.settings:read_settings")(resolve("jobs.settings:StateSettings"))
    bundles = resolve("jobs.catalog:Catalog")(settings.bundle_dirs).bundles()
    cards = {bundle.card.name: bundle.card for bundle in bundles}
    description = resolve("raster.describe:describe")(image, cards, options)
    print_result(_document(description), "" if as_json else _text(description), as_json)


def _document(description: Any) -> dict[str, Any]:
    return {
        "image": description.info,
        "conversion": description.conversion,
        "models": [_fit_document(entry) for entry in description.bundles],
    }


def _fit_document(entry: Any) -> dict[str, Any]:
    if entry.fit is None:
        return {"name": entry.name, "fits": False, "error": error_document(entry.refusal)}
    return {
        "name": entry.name,
        "fits": True,
        "ratio": entry.fit.ratio,
        "spacing": entry.fit.spacing,
        "warnings": entry.fit.warnings,
    }


def _text(description: Any) -> str:
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(description.info, description.conversion):
        facts.add_row(Text(name, style="bold"), Text(value))
    models = Table.grid(padding=(0, 2))
    for entry in description.bundles:
        models.add_row(Text(entry.name, style="bold"), *_verdict(entry))
    if not description.bundles:
        models.add_row(Text("no models are installed: `foveate models add` adds one"))
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else _PIPE_WIDTH, force_terminal=terminal)
    with console.capture() as capture:
        console.print(Group(facts, Text("\nHow the models fit", style="bold"), models))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _verdict(entry: Any) -> tuple[Text, Text]:
    if entry.fit is None:
        return Text("no", style="red"), Text(f"{entry.refusal.message}\n{entry.refusal.hint}")
    x, y = entry.fit.ratio
    scale = "sees level 0 as it is" if (x, y) == (1.0, 1.0) else f"one of its pixels is {x:.4g} x {y:.4g} of level 0"
    return Text("yes", style="green"), Text("\n".join([scale, *entry.fit.warnings]))


def _facts(info: ImageInfo, conversion: str | None) -> Iterator[tuple[str, str]]:
    yield "image", f"{info.name}, a {info.kind}"
    yield (
        "format",
        f"{info.driver}, {'its tiles read directly' if info.reader == 'direct' else f'read by {info.reader}'}",
    )
    yield "size", f"{info.width} x {info.height} px ({info.width * info.height / 1e6:.4g} Mpx)"
    sizes = ", ".join(f"{level.width} x {level.height}" for level in info.levels)
    blocks = info.levels[0].tile
    yield "levels", f"{len(info.levels)}: {sizes}; stored in blocks of {blocks[0]} x {blocks[1]}"
    names = ", ".join(f"{number} {name}" for number, name in enumerate(info.bands, start=1))
    yield "bands", f"{names}; {info.dtype}"
    yield "spacing", _spacing(info)
    yield "place", _place(info)
    yield "no data", _no_data(info)
    if info.bounds is not None:
        x, y, width, height = info.bounds
        yield "bounds", f"{width} x {height} px at ({x}, {y})"
    if info.frame != "level-0":
        yield "frame", info.frame
    if conversion is not None:
        yield "scratch", conversion
    for warning in info.warnings:
        yield "warning", warning


def _spacing(info: ImageInfo) -> str:
    if info.spacing is None:
        return "unknown"
    x, y, unit = info.spacing.x, info.spacing.y, "µm" if info.spacing.unit == "um" else "m"
    sides = f"{x:.6g} {unit}" if x == y else f"{x:.6g} x {y:.6g} {unit}"
    return f"{sides} a pixel, from {info.spacing.origin}"


def _place(info: ImageInfo) -> str:
    if info.crs is None and info.transform is None and not info.gcps:
        return "none"
    parts = [_crs_name(info.crs) if info.crs else "unknown CRS"]
    if info.gcps:
        parts.append(f"{len(info.gcps)} ground control points")
    if info.transform is not None:
        parts.append(f"transform {', '.join(f'{number:.10g}' for number in info.transform)}")
    if info.area_or_point is not None:
        parts.append(f"pixel is {info.area_or_point.lower()}")
    return "; ".join(parts)


def _crs_name(wkt: str) -> str:
    name = re.match(r'\s*\w+\s*\[\s*"([^"]*)"', wkt)
    code = re.search(r'(?:ID|AUTHORITY)\["(\w+)",\s*"?(\w+)"?\]\s*\]\s*$', wkt)
    return (name[1] if name else "unnamed CRS") + (f" ({code[1]}:{code[2]})" if code else "")


def _no_data(info: ImageInfo) -> str:
    texts = {
        "none": "every pixel is data",
        "nodata": "NaN" if info.nodata is None else f"value {info.nodata:g}",
        "alpha": "alpha band",
        "mask": "mask in the file or beside it",
        "bounds": "outside the scanner's bounds",
    }
    return texts[info.validity]

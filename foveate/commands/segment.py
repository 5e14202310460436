"""`foveate segment`: the whole job in this process."""

import math
import os
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate import options as spelled
from foveate.bundles import named_bundle
from foveate.card import read_card
from foveate.coverage import checked_coverage
from foveate.errors import OptionInvalid
from foveate.localfiles import check_unasked
from foveate.output import JsonFlag, print_result
from foveate.progress import show_progress
from foveate.resolve import resolve
from foveate.schema import SegmentOptions


def register(app: typer.Typer) -> None:
    app.command("segment", help="Segment one local image into a directory of results.")(segment)


def segment(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A slide, a scene or a picture; a DICOM folder.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory of the results.")],
    model: spelled.LocalModelOption = None,
    policy: spelled.PolicyOption = None,
    coverage: spelled.CoverageOption = None,
    detail: spelled.DetailOption = None,
    overlap: spelled.OverlapOption = 0.25,
    roi: spelled.RoiOption = None,
    spacing: spelled.SpacingOption = None,
    bands: spelled.BandsOption = None,
    rescale: spelled.RescaleOption = None,
    mask_downsample: spelled.MaskDownsampleOption = 1,
    tissue_mask: spelled.TissueMaskOption = True,
    force: spelled.ForceOption = False,
    regions: spelled.RegionsOption = True,
    outputs: spelled.OutputsOption = None,
    device: spelled.DeviceOption = "auto",
    block: Annotated[
        int | None, typer.Option("--block", metavar="CELLS", min=1, help="Cells a side of a block; default: by memory.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", metavar="N", min=1, max=1024, help="Patches a forward; default: by device."),
    ] = None,
    memory: Annotated[
        float, typer.Option("--memory", metavar="GB", help="Memory to stay within, in 10^9 bytes.")
    ] = 2.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a complete DIR.")] = False,
    as_json: JsonFlag = False,
) -> None:
    chosen = spelled.segment_options(
        model=model,
        policy=policy,
        coverage=coverage,
        detail=detail,
        overlap=overlap,
        roi=roi,
        spacing=spacing,
        bands=bands,
        rescale=rescale,
        mask_downsample=mask_downsample,
        tissue_mask=tissue_mask,
        force=force,
        regions=regions,
        outputs=outputs,
    )
    if not 0 < memory < math.inf:
        raise OptionInvalid(f"--memory {memory:g}: that is no amount of memory", hint="give GB, such as 2 or 4.5")
    # Torch's threads would spin while they wait, on cores that the reading threads need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settings = resolve("jobs.settings:read_settings")(resolve("jobs.settings:StateSettings"))
    catalog = resolve("jobs.catalog:Catalog")(settings.bundle_dirs)
    _refuse_early(image, out, chosen, catalog, overwrite=overwrite)
    with show_progress(image.name) as report:
        report(0.0, "loading")  # torch alone takes seconds
        manifest: dict[str, Any] = resolve("worker.local:segment")(
            image,
            out,
            chosen,
            catalog=catalog,
            machine={"device": device, "memory_gb": memory, "batch": batch, "block": block},
            overwrite=overwrite,
            report=lambda stage, share: report(share, stage),
        )
    print_result(manifest, _summary(manifest, out), as_json)


def _refuse_early(image: Path, out: Path, options: SegmentOptions, catalog: Any, *, overwrite: bool) -> None:
    """Raise what the job would, by the same rules, where these need no torch: it takes seconds to load."""
    check_unasked(out, overwrite=overwrite)
    if os.path.lexists(out) or out.resolve().is_relative_to(image.resolve()):
        return  # what may not be replaced goes before all else, and the job knows
    with closing(resolve("raster.image:open_image")(resolve("raster.image:ImageRef")(image.absolute()))) as opened:
        info = opened.info
    resolve("raster.fit:region_of_interest")(info, options)
    if options.model is None:
        cards = {bundle.card.name: bundle.card for bundle in catalog.bundles()}
        card = cards[resolve("raster.fit:choose_bundle")(info, cards, options)]
    else:
        card = read_card(named_bundle(options.model, lambda name: Path(catalog.bundle(name).directory)))
        resolve("raster.fit:fit")(info, card, options)
    resolve("raster.fit:checked_policy_for")(card, options.policy)
    checked_coverage(card, options)


def _summary(manifest: dict[str, Any], out: Path) -> str:
    counts, seconds = manifest["counts"], manifest["seconds"]
    by_fov = ", ".join(f"{count} at FoV {index}" for index, count in enumerate(counts["patches_by_fov"], start=1))
    lines = [
        f"{out}: {len(manifest['files']) + 1} files in {seconds['total']:.1f} s",
        f"model {manifest['model']['name']} {manifest['model']['version']}, {_way(manifest)}",
        f"{counts['forwards']} forwards ({by_fov}); {counts['covered_share']:.1%} of the data examined",
        *(f"warning: {warning}" for warning in manifest["warnings"]),
    ]
    return "\n".join(lines)


def _way(manifest: dict[str, Any]) -> str:
    """The policy; of adaptive coverage, what it spent."""
    asked = manifest["parameters"]
    if asked["coverage"] == "dense":
        return f"policy {asked['policy']}"
    share = manifest["counts"]["forwards_share"]
    return f"coverage {asked['coverage']}, detail {asked['detail']:g}: {share:.0%} of dense's forwards"

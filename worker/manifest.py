"""manifest.json: what was asked, what was done, what it cost, and what lies beside it (design 4.2)."""

import contextlib
import hashlib
import re
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foveate import __version__
from foveate.licences import restriction
from foveate.schema import ImageInfo
from model.bundle import Bundle
from raster.convert import needs_conversion
from raster.regions import RegionsSummary
from worker.assemble import Assembled
from worker.compute import Computed
from worker.counts import Seen, forwards, pixels_needed, windows_of, windows_of_tree
from worker.job import Job
from worker.plan import EXAMINED, Plan
from worker.trees import reader_of

_READ_BYTES = 4 << 20
"""Of a file that is hashed, at once."""


def manifest(
    job: Job,
    plan: Plan,
    bundle: Bundle,
    computed: Computed,
    assembled: Assembled,
    seconds: Mapping[str, float],
    out: Path,
    tick: Callable[[], None],
) -> dict[str, Any]:
    """The manifest of the files in `out`; `seconds` of wall time by stage, one after the other.

    `tick` is called often, and may raise to stop: probabilities are many gigabytes to read again.
    """
    return {
        "foveate": __version__,
        "image": _image(job.info, job.spec.image_sha256) | _spacing(job),
        "model": {"name": bundle.card.name, "version": bundle.card.version, "sha256": bundle.sha256},
        "parameters": parameters(job, computed.threshold),
        "counts": _counts(job, plan, computed, assembled.examined),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()}
        | {"total": round(sum(seconds.values()), 3)},
        "peak_memory_bytes": peak_memory_bytes(),
        "device": job.device,
        "warnings": _warnings(job, computed, assembled.regions),
        "files": _files(out, assembled.digests, tick),
    }


def parameters(job: Job, threshold: float | None) -> dict[str, Any]:
    """Every parameter, defaults included, as it was in force; `threshold` is that of adaptive coverage, None: none."""
    asked = job.options.model_dump(mode="json")
    area = job.placement.region_l0
    return asked | {
        "model": job.card.name,
        "policy": job.policy,
        "coverage": job.coverage.kind,
        "detail": job.coverage.detail,
        "threshold": threshold,
        "overlap_actual": job.cells.overlap,
        "stride": job.cells.stride,
        "roi": [area.x, area.y, area.width, area.height],
        "bands": [index + 1 for index in job.fit.bands.indices],
        "batch": job.batch,
        "block": job.budget.block,
        "memory": job.spec.memory_gb,
        "device": job.spec.device,
    }


def file_sha256(path: Path, tick: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file; of a directory, over the names and digests of its files in order. `tick` is called often."""
    digest = hashlib.sha256()
    if path.is_dir():
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{part.relative_to(path)}\0{file_sha256(part, tick)}\n".encode())
        return digest.hexdigest()
    with path.open("rb", buffering=0) as file:
        while content := file.read(_READ_BYTES):
            digest.update(content)
            tick()
    return digest.hexdigest()


def begin_peak_memory() -> None:
    """Measure the peak from here on, where the kernel can (proc(5), clear_refs); an engine lives through many jobs."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int:
    """The largest resident set of this process since `begin_peak_memory`."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _image(info: ImageInfo, sha256: str) -> dict[str, Any]:
    return {
        "name": info.name,
        "sha256": sha256,
        "reader": info.reader,
        "width": info.width,
        "height": info.height,
        "levels": [[level.width, level.height] for level in info.levels],
        "bands": info.bands,
        "dtype": info.dtype,
        "crs": info.crs,
        "frame": info.frame,
        "bounds": info.bounds,
    }


def _spacing(job: Job) -> dict[str, Any]:
    spacing = job.fit.spacing
    if spacing is None:
        return {"spacing": None, "spacing_unit": None}
    return {"spacing": [spacing.x, spacing.y], "spacing_unit": spacing.unit, "spacing_origin": spacing.origin}


def levels_read(job: Job, plan: Plan) -> set[int]:
    """The levels of the file that the plan's patches are read from; all of a tree's where it may still grow."""
    levels = _levels(job)
    if job.coverage.kind == "refined":
        return set(levels)
    return {level for level, windows in zip(levels, _seen(job, plan), strict=True) if windows.mask.any()}


def _levels(job: Job) -> list[int]:
    """The level of the file that each field of view is read from."""
    reader = reader_of(job)
    return [job.source.level_for(reader.plane(fov).scale) for fov in range(len(job.card.fovs))]


def _seen(job: Job, plan: Plan) -> list[Seen]:
    """The windows of the plan's patches, by field of view."""
    if job.tree is None:
        return windows_of(plan, job.lattice)
    return windows_of_tree(plan, job.tree, inner=job.coverage.kind == "refined")


def _counts(job: Job, plan: Plan, computed: Computed, examined: int) -> dict[str, Any]:
    seen = _seen(job, plan)
    by_fov = [int(windows.mask.sum()) for windows in seen]
    made = forwards(plan, seen)
    valid = max(1, computed.tally.valid)
    return {
        "locations": int((plan.reason == EXAMINED).sum()),
        "patches": sum(by_fov),
        "patches_by_fov": by_fov,
        "forwards": made,
        "forwards_dense": plan.dense,
        "forwards_share": made / max(1, plan.dense),
        "pixels_needed": pixels_needed(seen, job.grid, job.source.info, _levels(job).__getitem__),
        "pixels_decoded": computed.pixels_decoded,
        "pixels_converted": 0 if needs_conversion(job.info) is None else job.info.width * job.info.height,
        "blocks": len(job.placement.blocks),
        "covered_share": examined / valid,
        "skipped_share": computed.tally.background / valid,
    }


def _warnings(job: Job, computed: Computed, regions: RegionsSummary | None) -> list[str]:
    licence = restriction(job.card)
    warnings = [*([licence] if licence else []), *job.info.warnings, *job.fit.warnings]
    for region in sorted(computed.damaged):
        place = f"x {region.x}, y {region.y}, {region.width} x {region.height} px"
        warnings.append(f"damaged tile: {place} of level 0 cannot be decoded and is 255 in the mask")
    if regions is not None and regions.dropped_pixels:
        off_map = ", and what has no place on the map" if regions.beyond_map else ""
        warnings.append(
            f"regions.geojson leaves out regions below {regions.minimum_area} mask pixels{off_map}: "
            f"{regions.dropped_pixels} pixels in all"
        )
    return warnings


def _files(out: Path, known: Mapping[str, str], tick: Callable[[], None]) -> dict[str, dict[str, Any]]:
    """By name; a store is a directory, and counts as one file. `known`: digests that somebody has taken already."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(out.iterdir()):
        if path.name != "manifest.json":
            parts = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
            size = sum(part.stat().st_size for part in parts)
            found[path.name] = {"bytes": size, "sha256": known.get(path.name) or file_sha256(path, tick)}
    return found

"""From committed labels to the files of a result: mask, foveation map, polygons, overlay, statistics."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.schema import NODATA, SpacingInfo
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.overlay import read_mask, write_overlay
from raster.regions import RegionsJob, RegionsSummary, write_regions_in_process
from raster.source import Plane
from raster.statistics import statistics
from raster.whole_file import write_json
from raster.write import MaskWriter, write_foveation
from worker.canvas import Canvas, Tally
from worker.job import Job
from worker.placement import Piece, Placement
from worker.plan import EXAMINED, Plan

_OVERLAY_SIDE = 2048
"""Half of what the format allows: enough for a screen, and quick to write."""
_LEAST_AREA, _MOST_AREA = 16, 64


@dataclass(frozen=True)
class Assembled:
    """What the manifest says about the assembled files."""

    tally: Tally
    damaged: frozenset[Region]
    pixels_decoded: int
    regions: RegionsSummary


def assemble(
    job: Job, plan: Plan, canvas: Canvas, out: Path, seen_damage: frozenset[Region], step: Callable[[str], None]
) -> Assembled:
    """Write every file of the result but the manifest into the existing directory `out`.

    `seen_damage`: level-0 regions that are known to be damaged before any block says so. `step` is called with the name
    of each stage as it begins, and often within long ones; it may raise to stop.
    """
    step("mask")
    place = Georeference.of(job.info, job.fit.spacing)
    region, m = job.placement.region_l0, job.spec.options.mask_downsample
    mask = out / "mask.tif"
    with MaskWriter(
        out.parent, job.placement.mask_size, job.card.classes, place.regridded(region.x, region.y, m, m)
    ) as writer:
        tally, damaged, decoded = _write_labels(
            job, canvas, writer, seen_damage | job.known_damage, lambda: step("mask")
        )
        _ticking(lambda: writer.finish(mask), lambda: step("mask"))
        counts = writer.counts
    step("foveation")
    _write_foveation(job, plan, out / "foveation.tif", place)
    write_json(out / "statistics.json", statistics(job.card.classes, counts.tolist(), _mask_spacing(job)))
    step("regions")
    regions = write_regions_in_process(
        RegionsJob(
            mask=mask,
            out=out / "regions.geojson",
            classes=tuple(job.card.classes),
            region=region,
            mask_downsample=m,
            georeference=place,
            spacing=job.fit.spacing,
            frame=job.info.frame,
            bounds=job.info.bounds,
            minimum_area=minimum_area(job.placement.mask_size),
        ),
        lambda: step("regions"),
    )
    step("overlay")
    picture = _picture(job)
    labels = read_mask(mask, Size(picture.shape[1], picture.shape[0]))
    write_overlay(out / "overlay.png", picture, labels, job.card.classes, counts.tolist())
    return Assembled(tally, damaged, decoded, regions)


def minimum_area(mask: Size) -> int:
    """Mask pixels below which a region is left out of the polygons: a millionth of the mask, 16 to 64."""
    return min(max(mask.area // 1_000_000, _LEAST_AREA), _MOST_AREA)


def _ticking(work: Callable[[], None], tick: Callable[[], None]) -> None:
    """Do `work`, which may take minutes inside GDAL, and call `tick` every second meanwhile."""
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(work)
        while not wait([future], timeout=1.0).done:
            tick()
        future.result()


def _write_labels(
    job: Job, canvas: Canvas, writer: MaskWriter, known_damage: frozenset[Region], tick: Callable[[], None]
) -> tuple[Tally, frozenset[Region], int]:
    """All pieces in order, damage as no data. The damage is known only when every block is there."""
    tally, decoded = Tally(), 0
    damaged = set(known_damage)
    for block in job.placement.blocks:
        record = canvas.block(block)
        assert record is not None, f"block {block.name} was computed and is not in the canvas"
        tally, decoded = tally + record.tally, decoded + record.pixels_decoded
        damaged |= record.damaged
    for piece in job.placement.pieces():
        tick()
        labels, counted = labels_of(job.placement, canvas, piece)
        tally += counted
        writer.write(piece.region_m, without(labels, piece, job.placement, damaged))
    return tally, frozenset(damaged), decoded


def labels_of(placement: Placement, canvas: Canvas, piece: Piece) -> tuple[NDArray[np.uint8], Tally]:
    if len(piece.owners) > 1:
        seam = canvas.seam(piece)
        assert seam is not None, f"seam {piece.name} is still open"
        return seam
    record = canvas.block(placement.blocks.at(*piece.owners[0]))
    assert record is not None
    return record.labels[piece.name], Tally()


def without(
    labels: NDArray[np.uint8], piece: Piece, placement: Placement, damaged: Iterable[Region]
) -> NDArray[np.uint8]:
    """The piece's labels with every mask pixel that touches a damaged level-0 region set to no data."""
    m, area = placement.x.downsample, placement.region_l0
    for region in damaged:
        under = region.intersection(placement.piece_l0(piece)).shifted(-area.x, -area.y)
        if not under.empty:
            rows = slice(under.y // m - piece.rows.start_m, -(-under.y1 // m) - piece.rows.start_m)
            columns = slice(under.x // m - piece.columns.start_m, -(-under.x1 // m) - piece.columns.start_m)
            labels[rows, columns] = NODATA
    return labels


def _write_foveation(job: Job, plan: Plan, path: Path, place: Georeference) -> None:
    """One pixel a cell over exactly the ground of the mask: the cells share it out evenly."""
    rows, columns = job.placement.cells
    cells = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
    smallest, largest = job.lattice.fovs[0], job.lattice.fovs[-1]
    seen = plan.reason[cells] == EXAMINED
    mean = (plan.mean_fov[cells] - smallest) / max(1, largest - smallest)
    chosen = plan.choice[cells].astype(np.float32) + 1
    area = job.placement.region_l0
    grid = place.regridded(area.x, area.y, area.width / len(columns), area.height / len(rows))
    write_foveation(
        path,
        np.where(seen, mean.clip(0, 1), np.nan).astype(np.float32),
        np.where(seen, chosen, np.nan).astype(np.float32),
        grid,
    )


def _mask_spacing(job: Job) -> SpacingInfo | None:
    spacing, m = job.fit.spacing, job.spec.options.mask_downsample
    return spacing and spacing.model_copy(update={"x": spacing.x * m, "y": spacing.y * m})


def _picture(job: Job) -> NDArray[np.uint8]:
    """(height, width, 3): the examined region as people see it, at most _OVERLAY_SIDE pixels a side."""
    area = job.placement.region_l0
    scale = max(1.0, max(area.width, area.height) / _OVERLAY_SIDE)
    size = Size(max(1, round(area.width / scale)), max(1, round(area.height / scale)))
    plane = Plane((area.width / size.width, area.height / size.height), (float(area.x), float(area.y)))
    values = job.source.read(plane, Region.of(size)).values
    rgb = values[..., :3] if values.shape[2] >= 3 else np.repeat(values[..., :1], 3, axis=2)
    if rgb.dtype != np.uint8:
        low, high = np.percentile(rgb, (2, 98))
        rgb = ((rgb - low) / max(high - low, 1e-12)).clip(0, 1) * 255
    return rgb.astype(np.uint8)

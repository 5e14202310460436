"""From committed labels to the files of a result: mask, foveation map, polygons, overlay, statistics.

Beside inference: rows of the mask that no later patch touches are handed on at once, in a thread of its own, to the
mask's writer and to the process that vectorises. The canvas stays the truth: a job that is taken up again hands its
committed rows on from there. Memory: one row of pieces, as wide as the mask and no higher than a tile or a seam,
whatever the image's height.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from foveate.errors import DiskFull
from foveate.schema import NODATA
from model.finishing import LABELS, PROBABILITIES, UNCERTAINTY, UNCERTAINTY_STEPS, Layers
from raster.features import RegionsJob
from raster.geometry import Region, Size
from raster.georeference import Georeference
from raster.overlay import PICTURE_SIDE, read_mask, write_overlay
from raster.probabilities import ProbabilitiesWriter, zipped
from raster.regions import RegionsProcess, RegionsSummary
from raster.source import Plane
from raster.statistics import statistics
from raster.uncertainty import UncertaintyWriter
from raster.whole_file import write_json
from raster.write import MaskWriter, write_foveation
from worker.canvas import Canvas
from worker.job import Job, threads
from worker.placement import Piece, Placement, Span
from worker.plan import EXAMINED, Plan

_LEAST_AREA, _MOST_AREA = 16, 64
_UNEXAMINED: dict[str, float] = {LABELS: NODATA, UNCERTAINTY: -1, PROBABILITIES: np.nan}
STORE, REGIONS = "probabilities.zarr", "regions.geojson"
_PICTURE_ROWS = 256
"""Of the overlay's picture, that a thread reads at once."""


@dataclass(frozen=True)
class Assembled:
    """What the files came to: the polygons, if any were asked for, and the mask's pixels that have a class."""

    regions: RegionsSummary | None
    examined: int

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 by name, of files that were hashed when they were written."""
        return {} if self.regions is None else {REGIONS: self.regions.sha256}


class Assembly:
    """Takes rows of the mask as they become final, and ends with every file of the result but the manifest.

    A context manager, which ends what still runs. Its methods are for one thread; the work is done in another.
    """

    def __init__(self, job: Job, canvas: Canvas, out: Path) -> None:
        """`out` exists. Reads the overlay's picture at once, so that nothing is decoded after the last patch."""
        self._job, self._canvas, self._out = job, canvas, out
        self._picture = _picture(job)
        self._rows = job.placement.row_spans
        self._known: list[frozenset[Region]] = []
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.kill()
        self._thread.shutdown(cancel_futures=True)
        self._files.close()

    def hand_on(self, block_row: int, damaged: frozenset[Region]) -> None:
        """Every block down to `block_row` is committed, its seams are closed, and `damaged` is known so far.

        Raises what the work on earlier rows raised.
        """
        while self._tasks and self._tasks[0].done():
            self._tasks.popleft().result()
        for rows in self._rows[len(self._known) :]:
            if max(rows.owners) > block_row:
                break
            self._known.append(damaged)
            self._tasks.append(self._thread.submit(self._files.take, rows, damaged))

    def finish(self, plan: Plan, damaged: frozenset[Region], step: Callable[[], None]) -> Assembled:
        """The rest, once every row was handed on; `step` is called every second, and may raise to stop.

        Damage may show after rows that it touches were handed on, if only a later patch reads that level of the file.
        All rows are then written again: that is rare, and by now all damage is known.
        """
        seen = zip(self._rows, self._known, strict=True)
        if any(_touched(self._job.placement, rows, damaged - known) for rows, known in seen):
            self._again(damaged)
        try:
            return self._finished(plan, step)
        except DiskFull:
            # Or GDAL's cache of blocks, which all threads share, lost some under a reader's pressure (OSGeo/gdal#2015).
            # Nobody reads any more; a disk that is full says so again.
            self._again(damaged)
            return self._finished(plan, step)

    def _finished(self, plan: Plan, step: Callable[[], None]) -> Assembled:
        last = self._thread.submit(self._files.finish, plan, self._picture)
        while not wait([last], timeout=1.0).done:
            step()
        for task in self._tasks:
            task.result()
        return last.result()

    def _again(self, damaged: frozenset[Region]) -> None:
        """Begin anew with all rows."""
        self.__exit__(None, None, None)
        self._known.clear()
        self._begin()
        self.hand_on(len(self._job.placement.blocks.row_spans), damaged)

    def _begin(self) -> None:
        self._files = _Files(self._job, self._canvas, self._out)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assemble")
        self._tasks: deque[Future[None]] = deque()


class _Files:
    """The files that grow with the rows: the mask and the polygons. Changes over time; used by one thread."""

    def __init__(self, job: Job, canvas: Canvas, out: Path) -> None:
        self._job, self._canvas, self._out = job, canvas, out
        self._place = Georeference.of(job.info, job.fit.spacing)
        region, m = job.placement.region_l0, job.spec.options.mask_downsample
        grid = self._place.regridded(region.x, region.y, m, m)
        size, outputs = job.placement.mask_size, job.options.outputs
        # A killed job leaves its scratch; the next attempt begins with none.
        scratch = out.with_name("scratch")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        self._mask = MaskWriter(scratch, size, job.card.classes, grid)
        self._outside = np.zeros(256, np.int64)
        self._uncertainty = UncertaintyWriter(scratch, size, grid) if UNCERTAINTY in outputs else None
        self._probabilities = (
            ProbabilitiesWriter(out / STORE, size, job.card.classes, grid) if PROBABILITIES in outputs else None
        )
        self._regions = RegionsProcess(_regions_job(job, self._place, out)) if job.options.regions else None

    def kill(self) -> None:
        """End the process; whoever waits for it gets an error. From any thread."""
        if self._regions is not None:
            self._regions.kill()

    def close(self) -> None:
        if self._regions is not None:
            self._regions.close()
        self._mask.close()
        if self._uncertainty is not None:
            self._uncertainty.close()

    def take(self, rows: Span, damaged: frozenset[Region]) -> None:
        """Write one row of pieces, with what is damaged as no data, in every layer."""
        placement = self._job.placement
        whole: Layers = {}
        for columns in placement.column_spans:
            piece = Piece(rows, columns)
            layers = layers_of(placement, self._canvas, piece)
            for name, layer in without(layers, piece, placement, damaged).items():
                if name not in whole:
                    shape = (*layer.shape[:-1], placement.mask_size.width)
                    whole[name] = np.empty(shape, layer.dtype)
                whole[name][..., columns.start_m : columns.end_m] = layer
        area = Region(0, rows.start_m, placement.mask_size.width, rows.end_m - rows.start_m)
        if self._regions is not None:
            self._regions.write(whole[LABELS])
        self._mask.write(area, whole[LABELS])
        self._outside += _outside(placement, area, whole[LABELS])
        if self._uncertainty is not None:
            steps = whole[UNCERTAINTY]
            values = np.where(steps < 0, np.nan, steps / np.float32(UNCERTAINTY_STEPS)).astype(np.float32)
            self._uncertainty.write(area, values)
        if self._probabilities is not None:
            self._probabilities.write(area, whole[PROBABILITIES])

    def finish(self, plan: Plan, picture: NDArray[np.uint8]) -> Assembled:
        """What is left once all rows are there; the process writes its polygons meanwhile, and a thread the overlay."""
        job, out = self._job, self._out
        if self._regions is not None:
            self._regions.end()
        region, m = job.placement.region_l0, job.placement.x.downsample
        covered = region.width / m, region.height / m
        labels = read_mask(self._mask.seal(), Size(picture.shape[1], picture.shape[0]), covered)
        counts = self._mask.counts.tolist()
        level_0 = (self._mask.counts * m**2 - self._outside).tolist()
        with ThreadPoolExecutor(1, thread_name_prefix="overlay") as beside:
            drawn = beside.submit(write_overlay, out / "overlay.png", picture, labels, job.card.classes, counts)
            self._mask.finish(out / "mask.tif")
            if self._uncertainty is not None:
                self._uncertainty.finish(out / "uncertainty.tif")
            if self._probabilities is not None:
                self._probabilities.finish()
                if job.spec.archive:
                    zipped(out / STORE)
            _write_foveation(job, plan, out / "foveation.tif", self._place)
            write_json(out / "statistics.json", statistics(job.card.classes, counts, level_0, job.fit.spacing))
            drawn.result()
        examined = job.placement.mask_size.area - counts[NODATA]
        return Assembled(None if self._regions is None else self._regions.summary(), examined)


def _regions_job(job: Job, place: Georeference, out: Path) -> RegionsJob:
    return RegionsJob(
        out=out / REGIONS,
        classes=tuple(job.card.classes),
        region=job.placement.region_l0,
        mask_downsample=job.spec.options.mask_downsample,
        georeference=place,
        spacing=job.fit.spacing,
        frame=job.info.frame,
        bounds=job.info.bounds,
        minimum_area=minimum_area(job.placement.mask_size),
    )


def minimum_area(mask: Size) -> int:
    """Mask pixels below which a region is left out of the polygons: a millionth of the mask, 16 to 64."""
    return min(max(mask.area // 1_000_000, _LEAST_AREA), _MOST_AREA)


def _touched(placement: Placement, rows: Span, damaged: Iterable[Region]) -> bool:
    y0, y1 = placement.y.l0(rows.start_m, rows.end_m)
    return any(region.y < y1 and y0 < region.y1 for region in damaged)


def layers_of(placement: Placement, canvas: Canvas, piece: Piece) -> Layers:
    """The piece's committed layers."""
    if len(piece.owners) > 1:
        seam = canvas.seam(piece)
        assert seam is not None, f"seam {piece.name} is still open"
        return seam[0]
    layers = canvas.layers(placement.blocks.at(*piece.owners[0]), piece)
    assert layers, f"the block of piece {piece.name} was computed and is not in the canvas"
    return layers


def without(layers: Layers, piece: Piece, placement: Placement, damaged: Iterable[Region]) -> Layers:
    """The piece's layers, changed in place: every mask pixel that touches a damaged level-0 region was not examined."""
    m, area = placement.x.downsample, placement.region_l0
    for region in damaged:
        under = region.intersection(placement.piece_l0(piece)).shifted(-area.x, -area.y)
        if not under.empty:
            rows = slice(under.y // m - piece.rows.start_m, -(-under.y1 // m) - piece.rows.start_m)
            columns = slice(under.x // m - piece.columns.start_m, -(-under.x1 // m) - piece.columns.start_m)
            for name, layer in layers.items():
                layer[..., rows, columns] = _UNEXAMINED[name]
    return layers


def _write_foveation(job: Job, plan: Plan, path: Path, place: Georeference) -> None:
    """One pixel a cell over exactly the ground of the mask: the cells share it out evenly."""
    rows, columns = job.cells_asked
    cells = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
    smallest, largest = job.card.fovs[0], job.card.fovs[-1]
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


def _outside(placement: Placement, area: Region, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,) level-0 pixels beyond the region of interest that mask pixels of each value cover, in whole rows of it."""
    m, region, size = placement.x.downsample, placement.region_l0, placement.mask_size
    right, below = size.width * m - region.width, size.height * m - region.height
    outside = m * right * np.bincount(labels[:, -1], minlength=256)
    if area.y1 == size.height:
        outside += below * (m * np.bincount(labels[-1], minlength=256) - right * (np.arange(256) == labels[-1, -1]))
    return outside


def _picture(job: Job) -> NDArray[np.uint8]:
    """(height, width, 3): the examined region as people see it, at most PICTURE_SIDE pixels a side."""
    area = job.placement.region_l0
    scale = max(1.0, max(area.width, area.height) / PICTURE_SIDE)
    size = Size(max(1, round(area.width / scale)), max(1, round(area.height / scale)))
    plane = Plane((area.width / size.width, area.height / size.height), (float(area.x), float(area.y)))
    shown = _shown_bands(job.card.input.bands)
    strips = [
        Region(0, y, size.width, min(_PICTURE_ROWS, size.height - y)) for y in range(0, size.height, _PICTURE_ROWS)
    ]
    with ThreadPoolExecutor(threads(), "picture") as readers:
        read = readers.map(lambda strip: job.source.read(plane, strip).values[..., shown], strips)
        rgb = np.concatenate(list(read))
    if rgb.dtype != np.uint8:
        low, high = np.percentile(rgb, (2, 98))
        rgb = ((rgb - low) / max(high - low, 1e-12)).clip(0, 1) * 255
    return rgb.astype(np.uint8)


def _shown_bands(names: Sequence[str]) -> list[int]:
    """Which of a bundle's bands people see as red, green and blue."""
    natural = ["red", "green", "blue"]
    if set(natural) <= set(names):
        return [names.index(name) for name in natural]
    return [0, 1, 2] if len(names) >= len(natural) else [0, 0, 0]

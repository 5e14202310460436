"""What warm children do for the benches: the whole engine, its forwards alone, its decoding alone, or it on a simulated
accelerator. Each of these runs in a process of its own, which holds what it needs between calls.
"""

import contextlib
import copy
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import worker.commits
import worker.pipeline
from bench.needed import needed
from bench.processes import Stopwatch
from foveate.schema import SegmentOptions
from jobs.catalog import Catalog
from model.accumulator import Accumulator, BlockSums
from model.bundle import Bundle, load_bundle
from model.device import Ferry, Landing
from model.finishing import LABELS, Taps
from model.lanes import Lanes
from model.predictor import PatchBatch, Predictor, Scores
from model.sums import OpenSums
from raster.bands import fill_colour
from raster.fit import fit
from raster.geometry import Region, Size
from raster.image import ImageRef, open_image
from raster.regions import stand_by
from raster.source import Plane, Source
from worker.local import segment
from worker.spec import JobSpec

_WINDOW = 1024
_SQUARE = 128
_CACHE_BYTES = 200_000_000
_BATCH = 8
"""Patches that an accelerator takes at once."""
_WAITING = 1.5
"""Seconds between jobs."""
_QUEUED = 2
"""Batches that an accelerator has under way before it makes the host wait."""


def run(image: Path, bundle: Path, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """One job, dense unless `options` say otherwise, from its start to the published directory `out`: times, manifest.

    An older `out` is replaced. A process for the polygons stands by, as in an engine that waits for a job.
    """
    stand_by()
    time.sleep(_WAITING)
    shutil.rmtree(out, ignore_errors=True)
    asked = SegmentOptions(**({"model": str(bundle), "coverage": "dense"} | options))
    machine = {"device": "cpu", "memory_gb": 2.0, "batch": None, "block": None}
    with Stopwatch() as spent:
        manifest = segment(
            image, out, asked, catalog=Catalog([]), machine=machine, overwrite=False, report=lambda stage, share: None
        )
    return spent.times | {"manifest": manifest}


def cores() -> int:
    return len(os.sched_getaffinity(0))


# --- forwards alone ---------------------------------------------------------------------------------------------------


class _Recorder(Predictor):
    """Keeps the batches that the engine would forward, and forwards none."""

    batches: list[PatchBatch]

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        super().__init__(bundle, device)
        self.batches = []

    def open_block(self, size: Size, overlap_px: int) -> Accumulator:
        return _Finished(len(self.card.classes))

    def scores(self, batch: PatchBatch) -> Scores:
        return torch.zeros(())

    def add(self, sums: BlockSums, batch: PatchBatch, scores: Scores) -> None:
        sums.at(1)  # a block without sums has no data
        self.batches.append(copy.deepcopy(batch))


_recorded: tuple[Predictor, Predictor, list[PatchBatch]]
"""For `forward` and `forward_split`, whose weights are laid out for other numbers of threads; changes with `record`."""


def record(image: Path, bundle: Path, out: Path, options: dict[str, Any]) -> int:
    """Keep the batches of a job in memory, for `forward`; returns how many patches they hold."""
    global _recorded  # noqa: PLW0603
    recorder = _with(_Recorder, image, bundle, out, options)[0]
    predictor = Predictor(load_bundle(bundle), torch.device("cpu"))
    with patch("model.predictor.threads_of_a_lane", contextlib.nullcontext):
        split = Predictor(load_bundle(bundle), torch.device("cpu"))
    torch.set_num_threads(cores())
    _recorded = predictor, split, recorder.batches
    for batch in recorder.batches[:2]:
        predictor.scores(batch)
        split.scores(batch)
    return sum(batch.count for batch in recorder.batches)


def forward() -> dict[str, float]:
    """All recorded batches through the network as in the engine: normalisation and softmax included, no stitching."""
    predictor, _, batches = _recorded
    with Stopwatch() as spent, Lanes(predictor.device) as lanes:
        for _ in lanes.map(predictor.scores, batches):
            pass
    return spent.times


def forward_split() -> dict[str, float]:
    """As `forward`, but one batch after the other, each layer of it split among the cores, as torch does by itself."""
    _, predictor, batches = _recorded
    with Stopwatch() as spent:
        for batch in batches:
            predictor.scores(batch)
    return spent.times


# --- an accelerator ---------------------------------------------------------------------------------------------------


class _Accelerator(Predictor):
    """Takes batches and is done with each after a stated time, while the host goes on, as a device's stream does."""

    seconds_per_patch = 0.0

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        super().__init__(bundle, device)
        self.tries_batches = True
        self.busy = 0.0
        self._ends: list[float] = []
        self.ferry = _LateFerry(device, self._ends)

    def open_block(self, size: Size, overlap_px: int) -> Accumulator:
        return _Finished(len(self.card.classes))

    def best_batch(self, most: int, mixed: int) -> int:
        return min(most, _BATCH)

    def scores(self, batch: PatchBatch) -> Scores:
        return torch.zeros(())

    def add(self, sums: BlockSums, batch: PatchBatch, scores: Scores) -> None:
        sums.at(1)  # a block without sums has no data
        while len(self._ends) >= _QUEUED:
            _sleep_until(self._ends.pop(0))
        takes = self.seconds_per_patch * batch.count
        self._ends.append(max([time.perf_counter(), *self._ends[-1:]]) + takes)
        self.busy += takes


class _LateFerry(Ferry):
    """Brings results back when the batches that came before them are done; `ends` is when each of those is."""

    def __init__(self, device: torch.device, ends: list[float]) -> None:
        super().__init__(device)
        self._device, self._ends = device, ends

    def another(self) -> "_LateFerry":
        return _LateFerry(self._device, self._ends)

    def down(self, arrays: Mapping[str, Tensor]) -> Landing:
        return Landing(arrays, _Moment(self._ends[-1] if self._ends else 0.0))


class _Moment:
    """A device's event that happens at a time of the host's clock."""

    def __init__(self, when: float) -> None:
        self._when = when

    def synchronize(self) -> None:
        _sleep_until(self._when)


class _Finished(Accumulator):
    """A block whose sums cost the host nothing."""

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def emptied(self, size: Size) -> Self:
        return self

    def there(self, region: Region) -> Tensor:
        return torch.ones(()).expand(self._classes + 1, region.height, region.width)


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.perf_counter()))


def _finish(
    sums: OpenSums,
    rows: Taps,
    columns: Taps,
    *,
    valid: NDArray[np.bool_] | None,
    downsample: int,
    values: NDArray[np.uint8],
    nodata: int,
    **_: Any,
) -> dict[str, Tensor]:
    """Labels as a device would send them back, in squares, so that polygons and overviews have something to do."""
    height, width = (-(-len(taps.t) // downsample) for taps in (rows, columns))
    across = values[np.arange(width + _SQUARE * len(values)) // _SQUARE % len(values)]
    labels = np.stack(
        [across[start : start + width] for start in _SQUARE * (np.arange(height) // _SQUARE % len(values))]
    )
    if valid is not None and downsample == 1:
        labels[~valid] = nodata
    return {LABELS: torch.from_numpy(labels)}


def accelerated(
    image: Path, bundle: Path, out: Path, options: dict[str, Any], seconds_per_patch: float
) -> dict[str, Any]:
    """The engine with an accelerator in the network's place; `busy` is its share of the inference stage."""
    _Accelerator.seconds_per_patch = seconds_per_patch
    device, result = _with(_Accelerator, image, bundle, out, options)
    return result | {"busy": device.busy / result["manifest"]["seconds"]["compute"]}


def _with(
    kind: type[Predictor], image: Path, bundle: Path, out: Path, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """A job whose predictor is a `kind`, and whose blocks come finished: the predictor, and what `run` returns."""
    made: list[Predictor] = []

    def warm(spec: JobSpec) -> Predictor:
        made.append(kind(load_bundle(spec.model), torch.device("cpu")))
        return made[0]

    with patch.object(worker.pipeline, "warm_predictor", warm), patch.object(worker.commits, "finish", _finish):
        result = run(image, bundle, out, options)
    return made[0], result


# --- decoding alone ---------------------------------------------------------------------------------------------------


def decode(image: Path, bundle: Path, out: Path) -> dict[str, Any]:
    """Read every pixel that the finished job in `out` needed once through the source, on all cores, and drop it."""
    card = load_bundle(bundle).card
    masks = needed(out, card)
    ref = ImageRef(image)
    with contextlib.closing(open_image(ref)) as opened:
        fitted = fit(opened.info, card, SegmentOptions())
    with Stopwatch() as spent:
        source = Source(lambda: open_image(ref), fitted.bands.convert, fill_colour(card.input), _CACHE_BYTES)
        with contextlib.closing(source), ThreadPoolExecutor(cores()) as readers:
            planes = [Plane(level.downsample) for level in source.info.levels]
            for _ in readers.map(lambda window: source.read(planes[window[0]], window[1]), _windows(source, masks)):
                pass
            decoded = source.take_pixels_decoded()
    return spent.times | {"pixels": decoded}


def _windows(source: Source, masks: dict[int, NDArray[np.bool_]]) -> Iterator[tuple[int, Region]]:
    """(level, region) that together hold every needed pixel; whole tiles of the file, so that none is decoded twice."""
    for level, mask in masks.items():
        width, height = (tile * max(1, _WINDOW // tile) for tile in source.info.levels[level].tile)
        whole = Region(0, 0, mask.shape[1], mask.shape[0])
        for y in range(0, mask.shape[0], height):
            for x in range(0, mask.shape[1], width):
                region = Region(x, y, width, height).intersection(whole)
                if mask[region.slices()].any():
                    yield level, region

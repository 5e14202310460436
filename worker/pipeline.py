"""The whole computation on one page: image in, result directory out. The same with a queue and without one."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from foveate.errors import Dismissed
from model.bundle import load_bundle
from model.predictor import Predictor, choose_device
from raster.geometry import Region
from raster.whole_file import write_json
from worker.assemble import Assembly
from worker.canvas import Canvas
from worker.compute import BlockWork
from worker.job import COMPUTED, CONVERTED, LOOKED, Job, Report, prepared
from worker.look import distribution, take_thumbnail
from worker.manifest import manifest
from worker.plan import Plan, make_plan, why_skipped
from worker.spec import JobSpec

_warm: dict[tuple[str, str], Predictor] = {}
"""The bundle that was used last, by digest and device; an engine process keeps one warm."""


def run(spec: JobSpec, report: Report, dismissed: Callable[[], bool]) -> dict[str, Any]:
    """Compute `spec` into the new directory `spec.out`, continuing what `spec.canvas` holds; returns the manifest.

    `report` gets the stage and the share of the job that is done, often; `dismissed` is asked as often, and Dismissed
    is raised once it says so. Any FoveateError for bad input; nothing is published here: that is the caller's rename.
    """
    clock = _Clock()
    tell = _telling(report, dismissed)
    with contextlib.ExitStack() as stack:
        with clock.stage("load"):
            predictor = warm_predictor(spec)
        with clock.stage("open"):
            job = stack.enter_context(prepared(spec, predictor, tell))
        canvas = Canvas(spec.canvas, configuration(job, predictor))
        with clock.stage("look"):
            plan, seen_damage, decoded = planned(job, canvas, predictor, tell)
            spec.out.mkdir(parents=True)
            assembly = stack.enter_context(Assembly(job, plan, canvas, spec.out))
            job.source.take_pixels_decoded()  # the overlay's: nobody needs them for a patch
        with clock.stage("compute"):
            work = BlockWork(job, plan, canvas, predictor, seen_damage)
            computed = work.run(
                lambda share: tell("segmenting", LOOKED + share * (COMPUTED - LOOKED)), dismissed, assembly.hand_on
            )
        with clock.stage("tail"):
            job.source.forget()
            regions = assembly.finish(computed.damaged, lambda: tell("assembling", COMPUTED))
        computed = replace(computed, pixels_decoded=computed.pixels_decoded + decoded)
        content = manifest(job, plan, predictor.bundle, computed, regions, clock.seconds, spec.out)
        write_json(spec.out / "manifest.json", content)
        report("done", 1.0)
    return content


def warm_predictor(spec: JobSpec) -> Predictor:
    """The bundle of `spec`, loaded unless it is the one that was used last."""
    bundle, device = load_bundle(spec.model), choose_device(spec.device)
    key = (bundle.sha256, str(device))
    if key not in _warm:
        _warm.clear()
        _warm[key] = Predictor(bundle, device)
    return _warm[key]


def planned(job: Job, canvas: Canvas, predictor: Predictor, tell: Report) -> tuple[Plan, frozenset[Region], int]:
    """The committed plan, or a new one; the damage that the first look met, and the pixels that it decoded."""
    arrays = canvas.load_plan()
    if arrays is None:
        tell("looking", CONVERTED)
        thumbnail = take_thumbnail(
            job.source,
            job.grid,
            job.card,
            canvas.directory,
            lambda share: tell("looking", CONVERTED + share * (LOOKED - CONVERTED)),
        )
        tissue = job.options.tissue_mask and job.info.kind == "slide"
        reason = why_skipped(job.source, job.grid, job.lattice, job.placement, thumbnail, look_for_tissue=tissue)
        plan = make_plan(job.card, job.lattice, job.policy, distribution(predictor, thumbnail, job.lattice), reason)
        damaged = [[r.x, r.y, r.width, r.height] for r in sorted(thumbnail.damaged)]
        looked = {"damaged": np.array(damaged, np.int64).reshape(-1, 4)}
        looked["decoded"] = np.array(job.source.take_pixels_decoded())
        canvas.save_plan(plan.arrays() | looked)
        arrays = canvas.load_plan()
        assert arrays is not None, "the plan was written a moment ago"
    damage = frozenset(Region(*map(int, row)) for row in arrays.pop("damaged"))
    return Plan.of(arrays), damage, int(arrays.pop("decoded"))


def configuration(job: Job, predictor: Predictor) -> dict[str, Any]:
    """What committed blocks depend on; the partition into blocks is among it, since blocks have its names."""
    options = job.options.model_dump(mode="json") | {"policy": job.policy, "model": job.card.name}
    return options | {
        "image_sha256": job.spec.image_sha256,
        "bundle_sha256": predictor.bundle.sha256,
        "reader": job.info.reader,
        "device": job.device,
        "block": job.budget.block,
        "flat_blocks": job.spec.block is None,
    }


def _telling(report: Report, dismissed: Callable[[], bool]) -> Report:
    """`report` that also notices the dismissal of the job."""

    def tell(stage: str, share: float) -> None:
        if dismissed():
            raise Dismissed("the job was cancelled", hint="submit it again if that was a mistake")
        report(stage, share)

    return tell


class _Clock:
    """Seconds by stage; changes over time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start

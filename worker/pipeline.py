"""The whole computation on one page: image in, result directory out. The same with a queue and without one."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foveate import __version__
from foveate.errors import Dismissed
from model.bundle import load_bundle
from model.device import choose_device, give_back_memory, within_device
from model.heap import KEPT_BY_A_JOB, give_back, set_up_heap
from model.predictor import Predictor
from model.tree import Tree
from raster.geometry import Region
from raster.regions import stand_by
from raster.sidecars import find_sidecars
from raster.whole_file import write_json
from worker.assemble import Assembly
from worker.canvas import Canvas
from worker.compute import BlockWork
from worker.counts import forwards, windows_of_tree
from worker.job import COMPUTED, CONVERTED, LOOKED, Job, Report, prepared
from worker.look import Thumbnail, distribution, take_thumbnail
from worker.manifest import begin_peak_memory, file_sha256, levels_read, manifest
from worker.plan import EXAMINED, Asked, Plan, make_plan, tissue_in, why_skipped
from worker.refined import RefinedWork
from worker.sizing import batch_for
from worker.spec import CANVAS_FORMAT, JobSpec
from worker.trees import make_tree_plan

PREVIEWED = "refining, preview ready"
"""The stage under refined coverage from the moment on at which `JobSpec.preview` can be read."""

_warm: dict[tuple[str, str], Predictor] = {}
"""The bundle that was used last, by digest and device; an engine process keeps one warm."""


def run(spec: JobSpec, report: Report, dismissed: Callable[[], bool]) -> dict[str, Any]:
    """Compute `spec` into the new directory `spec.out`, continuing what `spec.canvas` holds; returns the manifest.

    `report` gets the stage and the share of the job that is done, often; `dismissed` is asked as often, and Dismissed
    is raised once it says so. Any FoveateError for bad input; nothing is published here: that is the caller's rename.
    """
    set_up_heap(KEPT_BY_A_JOB)
    begin_peak_memory()
    if spec.options.regions:
        stand_by()  # it starts beside the loading of the network
    clock = _Clock()
    tell = _telling(report, dismissed)
    with contextlib.ExitStack() as stack:
        with clock.stage("load"):
            predictor = warm_predictor(spec)
        stack.enter_context(_uncollected())
        stack.enter_context(within_device(predictor.device))
        stack.callback(give_back_memory, predictor.device)
        with clock.stage("open"):
            job = stack.enter_context(prepared(spec, predictor, tell))
        canvas = Canvas(spec.canvas, configuration(job, predictor))
        with clock.stage("look"):
            plan, first = planned(job, canvas, predictor, tell)
            job = replace(job, batch=first.batch)
            spec.out.mkdir(parents=True)
            assembly = stack.enter_context(Assembly(job, canvas, spec.out))
            # The overlay's picture: only of levels that patches, too, are read from is it any use to them.
            beforehand = job.source.take_pixels_decoded(levels_read(job, plan))
            give_back()  # or what the look needed for a moment would lie beside what the network needs
        with clock.stage("compute"):
            stage = _stage(job, plan)
            work = block_work(job, plan, canvas, predictor, first.damaged)
            computed = work.run(lambda share: tell(stage(), LOOKED + share * (COMPUTED - LOOKED)), assembly.hand_on)
        with clock.stage("tail"):
            job.source.forget()
            assembled = assembly.finish(computed.plan, computed.damaged, lambda: tell("assembling", COMPUTED))
        computed = replace(
            computed,
            pixels_decoded=computed.pixels_decoded + first.pixels_decoded + beforehand,
            threshold=job.coverage.threshold if first.threshold is None else first.threshold,
        )
        content = manifest(
            job, computed.plan, predictor.bundle, computed, assembled, clock.seconds, spec.out,
            lambda: tell("assembling", COMPUTED),
        )  # fmt: skip
        if computed.previewed is not None:
            content["seconds"]["preview"] = round(computed.previewed - clock.started, 3)
        write_json(spec.out / "manifest.json", content)
        report("done", 1.0)
    return content


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Within it the garbage collector passes over what was there before, which is libraries and lives on: looking
    through it again and again takes a hundredth of a job's time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def warm_predictor(spec: JobSpec) -> Predictor:
    """The bundle of `spec`, loaded unless it is the one that was used last."""
    bundle, device = load_bundle(spec.model), choose_device(spec.device)
    key = (bundle.sha256, str(device))
    if key not in _warm:
        _warm.clear()
        with within_device(device):
            _warm[key] = Predictor(bundle, device)
        give_back()  # a sixth of the process: what libraries and weights left behind when they were loaded
    _warm[key].begin_job()
    return _warm[key]


@dataclass(frozen=True)
class FirstLook:
    """What making the plan came to: the damage that it met, the pixels that it decoded, and the tree's threshold.

    `batch` is found with the plan and stays with it, so that a job that goes on forwards as it did before.
    """

    damaged: frozenset[Region]
    pixels_decoded: int
    threshold: float | None
    batch: int


def planned(job: Job, canvas: Canvas, predictor: Predictor, tell: Report) -> tuple[Plan, FirstLook]:
    """The committed plan, or a new one."""
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
        plan, threshold = _new_plan(job, predictor, thumbnail, lambda: tell("looking", LOOKED))
        damaged = [[r.x, r.y, r.width, r.height] for r in sorted(thumbnail.damaged)]
        looked = {"damaged": np.array(damaged, np.int64).reshape(-1, 4)}
        looked["decoded"] = np.array(job.source.take_pixels_decoded())
        looked["threshold"] = np.array(np.nan if threshold is None else threshold)
        looked["batch"] = np.array(batch_for(job, plan, predictor))
        canvas.save_plan(plan.arrays() | looked)
        arrays = canvas.load_plan()
        assert arrays is not None, "the plan was written a moment ago"
    damage = frozenset(Region(*map(int, row)) for row in arrays.pop("damaged"))
    threshold, decoded, batch = float(arrays.pop("threshold")), int(arrays.pop("decoded")), int(arrays.pop("batch"))
    first = FirstLook(damage, decoded, threshold if np.isfinite(threshold) else None, batch)
    return Plan.of(arrays), first


def _new_plan(
    job: Job, predictor: Predictor, thumbnail: Thumbnail, tick: Callable[[], None]
) -> tuple[Plan, float | None]:
    """The plan, and the threshold of a tree. `tick` is called often: level 0 is asked everywhere where it has data."""
    looking = job.options.tissue_mask and job.info.kind == "slide"
    tissue = tissue_in(thumbnail) if looking else None
    asked = Asked(job.cells, job.cells_asked, _judged(job))
    if job.tree is None:
        (reason,) = why_skipped(job.source, job.grid, [asked], tissue, thumbnail.step, tick)
        seen = distribution(predictor, thumbnail, job.lattice)
        return make_plan(job.card, job.lattice, job.policy, seen, reason), None
    both = [asked, _as_dense(job, job.tree)]
    reason, as_dense = why_skipped(job.source, job.grid, both, tissue, thumbnail.step, tick)
    dense = int((as_dense == EXAMINED).sum())
    return make_tree_plan(job, job.tree, predictor, thumbnail, tissue, reason, dense)


def _as_dense(job: Job, tree: Tree) -> Asked:
    """What dense coverage of the same region would ask for."""
    columns, rows = tree.dense.cells_touching(job.roi_w)
    return Asked(tree.dense, (rows, columns), job.placement.region_l0)


def _judged(job: Job) -> Region:
    """The level-0 pixels that say where there is data: under a tree those of whole roots, whatever part of them is
    asked for, since what is learnt in one place decides about others."""
    if job.tree is None:
        return job.placement.region_l0
    rows, columns = job.placement.cells
    first, last = job.lattice.window(columns.start, rows.start), job.lattice.window(columns[-1], rows[-1])
    x, y = job.grid.ratio
    whole = Region(0, 0, job.info.width, job.info.height)
    return Region.snapped_out(first.x * x, first.y * y, last.x1 * x, last.y1 * y).intersection(whole)


def block_work(
    job: Job, plan: Plan, canvas: Canvas, predictor: Predictor, known_damage: frozenset[Region]
) -> BlockWork:
    """What computes the blocks of this job."""
    if job.tree is not None and job.coverage.kind == "refined":
        return RefinedWork(job, job.tree, plan, canvas, predictor, known_damage)
    return BlockWork(job, plan, canvas, predictor, known_damage)


def _stage(job: Job, plan: Plan) -> Callable[[], str]:
    """What the progress says of computing: a plan's cost before it starts, and that there is a preview."""
    if job.tree is not None and job.coverage.kind == "planned":
        seen = windows_of_tree(plan, job.tree, inner=False)
        share = forwards(plan, seen) / max(1, plan.dense)
        cost = f"segmenting, {forwards(plan, seen)} forwards planned, {share:.0%} of dense"
        return lambda: cost
    return lambda: PREVIEWED if job.spec.preview.exists() else "segmenting"


def configuration(job: Job, predictor: Predictor) -> dict[str, Any]:
    """What committed blocks depend on; the partition into blocks is among it, since blocks have its names."""
    options = job.options.model_dump(mode="json", exclude={"regions"}) | {"policy": job.policy, "model": job.card.name}
    return options | {
        "foveate": __version__,
        "format": CANVAS_FORMAT,
        "coverage": job.coverage.kind,
        "detail": job.coverage.detail,
        "image_sha256": job.spec.image_sha256,
        "bundle_sha256": predictor.bundle.sha256,
        "reader": job.info.reader,
        "levels": [[level.width, level.height] for level in job.info.levels],
        "validity": job.info.validity,
        "nodata": job.info.nodata,
        "ratio": list(job.grid.ratio),
        "beside": _beside(job.spec),
        "device": job.device if predictor.half is None else f"{job.device}, {predictor.half}",
        "batch": job.spec.batch,
        "block": job.budget.block,
        "flat_blocks": job.spec.block is None,
    }


def _beside(spec: JobSpec) -> dict[str, str]:
    """Digests of the files that are read with the image: overviews, masks, world files."""
    names = find_sidecars(spec.image).names if spec.sidecars and spec.image.is_file() else ()
    return {name: file_sha256(spec.image.with_name(name)) for name in names}


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
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start

"""Everything about one job that follows from its request: the opened source, the grids, the placement, the budget."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from foveate.coverage import Coverage, checked_coverage
from foveate.errors import MemoryTooSmall
from foveate.schema import BundleCard, ImageInfo, SegmentOptions
from model.predictor import Predictor
from model.tree import Tree, make_tree
from raster.bands import fill_colour
from raster.convert import convert, converted_at, needs_conversion
from raster.fit import Fit, checked_policy_for, fit, region_of_interest
from raster.geometry import Region, Size
from raster.grid import Lattice, WorkingGrid, make_lattice
from raster.image import ImageRef, RasterImage, open_image
from raster.source import Source
from worker.placement import Placement, place
from worker.spec import JobSpec

Report = Callable[[str, float], None]
"""Takes the stage's name and the share of the whole job that is done."""

CONVERTED, LOOKED, COMPUTED = 0.10, 0.15, 0.92
"""Shares of the job's progress at the end of its stages."""

_BASE_BYTES = 1_100_000_000
"""Interpreter, torch, network and one batch's activations, measured on the shipped bundles."""
_LEAST_SHARE = 0.6
"""Of what is beyond the base, for blocks of a single cell: what the shares below leave is theirs, too."""
_CACHE_SHARE, _BLOCK_SHARE, _AHEAD_SHARE = 0.04, 0.3, 0.2
_MOST_CELLS, _BLOCKS_A_SIDE = 6, 5
"""Of blocks, a side: what a crash may cost is a block or two, and a block more is a seam more."""
COMMITTED_AT_ONCE = 2
"""Blocks that are being committed, or wait for it, at most while others are computed."""


@dataclass(frozen=True)
class Budget:
    """How the memory that was granted is shared out, in bytes; `block` in cells a side."""

    cache_bytes: int
    block: int
    ahead_bytes: int
    """Patches that are read ahead of the network."""
    at_once: int
    """Blocks that lanes may be refining, or have refined, each with open sums; others are being committed."""


@dataclass(frozen=True)
class Job:
    """One job, ready to be planned. `info` describes the user's image, also where a converted copy is read."""

    spec: JobSpec
    device: str
    """The kind of device, "cpu" or "cuda"."""
    options: SegmentOptions
    policy: str
    card: BundleCard
    info: ImageInfo
    fit: Fit
    source: Source
    grid: WorkingGrid
    lattice: Lattice
    """Its cells make the blocks: of dense coverage those that are forwarded, of a tree the roots."""
    placement: Placement
    budget: Budget
    known_damage: frozenset[Region]
    coverage: Coverage
    tree: Tree | None
    """None: dense."""
    batch: int
    """Patches a forward; on other devices than a CPU `worker.sizing` puts another number here."""

    @property
    def cells(self) -> Lattice:
        """What the plan's arrays lie on: the finest squares, whatever the coverage."""
        return self.lattice if self.tree is None else self.tree.cells

    @property
    def cells_asked(self) -> tuple[range, range]:
        """Rows and columns of the cells that the blocks own."""
        rows, columns = self.placement.cells
        if self.tree is None:
            return rows, columns
        scale, grid = self.tree.scales[-1], self.tree.grid(0)
        return (
            range(rows.start * scale, min(rows.stop * scale, grid[0])),
            range(columns.start * scale, min(columns.stop * scale, grid[1])),
        )

    @property
    def scales(self) -> tuple[int, ...]:
        """Working pixels along a side of one pixel of the open sums, of each kind that there may be."""
        return (1,) if self.tree is None else self.tree.scales

    @property
    def overlap_px(self) -> int:
        """Pixels of their own scale that windows share."""
        return self.cells.overlap_px

    @property
    def roi_w(self) -> Region:
        """The working pixels that the mask is read from."""
        (x0, x1), (y0, y1) = (axis.working(0, axis.length_m) for axis in (self.placement.x, self.placement.y))
        return Region.between(x0, y0, x1, y1)


@contextlib.contextmanager
def prepared(spec: JobSpec, predictor: Predictor, report: Report) -> Iterator[Job]:
    """The job behind `spec`; its file handles are closed at the end. Raises FoveateErrors for bad input."""
    card = predictor.card
    options = spec.options
    coverage = checked_coverage(card, options)
    policy = checked_policy_for(card, options.policy)
    ref = ImageRef(spec.image, spec.sidecars, spec.reader)
    with contextlib.closing(open_image(ref)) as image:
        info = image.info.model_copy(update={"name": spec.image_name})
    fitted = fit(info, card, options)
    grid = WorkingGrid(Size(info.width, info.height), fitted.ratio)
    bank = card.patch_size, tuple(card.fovs), options.overlap
    tree = None if coverage.kind == "dense" else make_tree(grid.size, *bank)
    lattice = make_lattice(grid.size, *bank) if tree is None else tree.roots
    # Lanes refine blocks side by side; another device takes one block after the other, and likes large batches.
    single = coverage.kind == "refined" and predictor.device.type == "cpu"
    scales = (1,) if tree is None else tree.scales
    budget = _budget(spec, card, lattice, grid, options, scales, single=single)
    roi = region_of_interest(info, options)
    flat = spec.block is None
    placement = place(grid, lattice, roi, options.mask_downsample, budget.block, flat=flat, coarsest=scales[-1])
    opened, damaged = _readable(ref, info, spec.canvas, report)
    source = Source(
        opened, fitted.bands.convert, fill_colour(card.input), budget.cache_bytes, spec.canvas, name=info.name
    )
    with contextlib.closing(source):
        yield Job(
            spec=spec,
            device=predictor.device.type,
            options=options,
            policy=policy,
            card=card,
            info=info,
            fit=fitted,
            source=source,
            grid=grid,
            lattice=lattice,
            placement=placement,
            budget=budget,
            known_damage=frozenset(damaged),
            coverage=coverage,
            tree=tree,
            batch=spec.batch or predictor.few,
        )


def _budget(
    spec: JobSpec, card: BundleCard, lattice: Lattice, grid: WorkingGrid, options: SegmentOptions,
    scales: tuple[int, ...], *, single: bool,
) -> Budget:  # fmt: skip
    spare = int(spec.memory_gb * 1e9) - _BASE_BYTES
    # A block may hold open sums of every scale.
    sums_per_pixel = 4 * (len(card.classes) + 1) * sum(1 / scale**2 for scale in scales)
    # The open sums of a block and of the one that is being committed, parts of them that are being finished, and layers
    # at level 0.
    layers = 2 + 4 * ("uncertainty" in options.outputs) + 4 * len(card.classes) * ("probabilities" in options.outputs)
    bytes_per_cell = lattice.stride**2 * (2.5 * sums_per_pixel + layers * grid.ratio[0] * grid.ratio[1])
    if len(scales) > 1:
        # A root is seldom one of many in its block, so its margins count, and so do the scores of a refined tree.
        bytes_per_cell = lattice.patch**2 * 4 * (2 * len(card.classes) + 1) + bytes_per_cell / 2
    fits = int((max(spare, 0) * _BLOCK_SHARE / bytes_per_cell) ** 0.5)
    least = (_BASE_BYTES + bytes_per_cell / _LEAST_SHARE) / 1e9
    if spec.memory_gb < least:
        raise MemoryTooSmall(
            f"{spec.memory_gb:g} GB are too few for {card.name}: {len(card.classes)} classes on blocks of at least "
            f"{lattice.patch} px, overlap {options.overlap:g}, outputs {', '.join(options.outputs) or 'as usual'}",
            hint=f"grant at least {math.ceil(10 * least) / 10:.1f} (--memory; FOVEATE_MEMORY_GB of a service), ask for "
            "fewer outputs, or for dense coverage",
        )
    usual = min(max(1, fits), _MOST_CELLS, max(2, math.isqrt(lattice.rows * lattice.columns) // _BLOCKS_A_SIDE))
    if single:
        usual = 1  # every lane holds open sums of its own
    block = spec.block or usual
    side = lattice.stride * (block - 1) + lattice.patch
    sums = int(max(spare, 0) * (1 - _CACHE_SHARE - _AHEAD_SHARE) / (sums_per_pixel * side**2))
    at_once = max(1, sums - COMMITTED_AT_ONCE)
    return Budget(int(spare * _CACHE_SHARE), block, int(spare * _AHEAD_SHARE), at_once)


def _readable(
    ref: ImageRef, info: ImageInfo, canvas: Path, report: Report
) -> tuple[Callable[[], RasterImage], tuple[Region, ...]]:
    """What opens the image itself, or with a tiled copy in the canvas where the file would break speed or memory; and
    its damage.
    """
    if needs_conversion(info) is None:
        return lambda: open_image(ref), ()
    path = canvas / "converted.tif"
    converted = converted_at(path) or convert(ref, info, path, lambda share: report("converting", share * CONVERTED))
    return lambda: converted.open(ref), converted.damaged


def threads() -> int:
    """Threads that read ahead of the network: as many as this process may use, four at the most."""
    return min(4, len(os.sched_getaffinity(0)))

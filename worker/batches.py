"""From the plan to padded batches of patches, in lattice order."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from model.predictor import PatchBatch
from model.shots import Shot, batch_of, cell_shots
from raster.geometry import Region
from raster.grid import Block, Lattice, WorkingGrid
from raster.source import Plane, Reach, Sample, Source
from worker.placement import Placement
from worker.plan import EXAMINED, Plan

__all__ = ["PatchReader", "Shot", "in_groups", "shots"]


def shots(plan: Plan, block: Block) -> Iterator[Shot]:
    """The block's forwards in lattice order; an ensemble makes D of a cell, everything else one."""
    for row in block.rows:
        for column in block.columns:
            if plan.reason[row, column] != EXAMINED:
                continue
            weights = None if plan.weights is None else plan.weights[:, row, column]
            yield from cell_shots(row, column, plan.fovs_read(row, column), weights)


def in_groups(several: Iterable[Shot], batch: int) -> Iterator[list[Shot]]:
    """As few groups as `batch` allows, as even as can be: on a CPU a patch that is left alone takes longer than two."""
    every = list(several)
    count = -(-len(every) // batch)
    for index in range(count):
        yield every[len(every) * index // count : len(every) * (index + 1) // count]


class PatchReader:
    """Reads the patches of one image on one lattice; safe to use from several threads.

    Blocks should come in their own order, row by row: the source then keeps what a later block will read again, and
    nothing else. Another order costs decoding, not correctness.
    """

    whole = False
    """Whether a patch labels all that it shows."""

    def __init__(self, source: Source, grid: WorkingGrid, lattice: Lattice, placement: Placement) -> None:
        self._source = source
        self._grid = grid
        self._lattice = lattice
        self._placement = placement
        self._lock = Lock()
        self._reading: Counter[Block] = Counter()
        self._newest: Block | None = None
        self._oldest: Block | None = None

    def read(self, block: Block, group: list[Shot], batch: int) -> tuple[PatchBatch, frozenset[Region]]:
        """The group padded to `batch` patches, and the level-0 regions of damage that were met."""
        with self.on(block):
            return self.read_loose(self._placement.support(block), group, batch)

    def read_loose(self, corner: Region, group: list[Shot], batch: int) -> tuple[PatchBatch, frozenset[Region]]:
        """As `read`, of no block in particular: origins count from the `corner`, and nothing is forgotten."""
        samples = [[self.patch(shot.column, shot.row, fov) for fov in shot.fovs] for shot in group]
        patches = [[sample.values for sample in fovs] for fovs in samples]
        windows = [self.labels(shot) for shot in group]
        origins = [(window.x - corner.x, window.y - corner.y) for window in windows]
        damaged = frozenset().union(*(sample.damaged for fovs in samples for sample in fovs))
        return batch_of(group, patches, origins, batch, whole=self.whole), damaged

    @contextmanager
    def on(self, block: Block) -> Iterator[None]:
        """Notes that a block is being read; as soon as an older one no longer is, the source may forget its part.

        `read` does so for itself; whoever reads a block in several rounds, beside other blocks, does it around them.
        """
        with self._lock:
            self._reading[block] += 1
            self._newest = block if self._newest is None else max(self._newest, block, key=_place)
        try:
            yield
        finally:
            with self._lock:
                self._reading[block] -= 1
                self._reading = +self._reading
                oldest = min((*self._reading, self._newest), key=_place)
                advanced, self._oldest = oldest != self._oldest, oldest
            if advanced:
                self._source.release(*self._still_read(oldest))

    def _still_read(self, block: Block) -> tuple[Reach, Reach]:
        """What the patches of all blocks from `block` on may read: in its row, and in the rows below."""
        blocks, whole = self._placement.blocks, Region.of(self._grid.image)
        rest = {grid: Region.between(r.x, r.y, whole.x1, r.y1) for grid, r in self._reach(block).items()}
        if block.row + 1 == len(blocks.row_spans):
            return rest, {}
        below = self._reach(blocks.at(block.row + 1, block.column))
        return rest, {grid: Region.between(whole.x, r.y, whole.x1, whole.y1) for grid, r in below.items()}

    def _reach(self, block: Block) -> Reach:
        """What the patches of `block` may read, whatever fields of view they have."""
        reach: Reach = {}
        for fov in range(len(self._lattice.fovs)):
            first, last = self._corners(block, fov)
            region = Region.between(first.x, first.y, last.x1, last.y1)
            found = self._source.reach(self.plane(fov), region, once=not self._lattice.aligned)
            for grid, r in found.items():
                own = reach.get(grid, r)
                reach[grid] = Region.between(min(r.x, own.x), min(r.y, own.y), max(r.x1, own.x1), max(r.y1, own.y1))
        return reach

    def _corners(self, block: Block, fov: int) -> tuple[Region, Region]:
        """The block's first and last windows of a field of view, on its own plane."""
        first, last = (block.columns[0], block.rows[0]), (block.columns[-1], block.rows[-1])
        return self._window(*first, fov), self._window(*last, fov)

    def labels(self, shot: Shot) -> Region:
        """The working pixels that a shot labels."""
        return self._lattice.window(shot.column, shot.row)

    def _window(self, column: int, row: int, fov: int) -> Region:
        """The pixels of the field of view's own plane that a cell sees; of unaligned lattices those that it touches."""
        lattice, P = self._lattice, self._lattice.patch
        x, y = (k * lattice.stride * P // lattice.fovs[fov] for k in (column, row))
        return Region(x, y, P, P) if lattice.aligned else Region(x, y, P + 1, P + 1)

    def patch(self, column: int, row: int, fov: int) -> Sample:
        """(P, P, bands): the cell seen with the bank's field of view `fov`."""
        lattice, P = self._lattice, self._lattice.patch
        plane = self.plane(fov)
        if not lattice.aligned:
            (x, y), (rx, ry) = plane.origin, self._grid.ratio
            own = Plane(plane.scale, (x + column * lattice.stride * rx, y + row * lattice.stride * ry))
            return self._source.read_once(own, Region(0, 0, P, P))
        return self._source.read(plane, self._window(column, row, fov))

    def plane(self, fov: int) -> Plane:
        """The pixel grid of one field of view's resolution; pixel (0, 0) is the first of cell (0, 0)'s window."""
        side, P = self._lattice.fovs[fov], self._lattice.patch
        rx, ry = self._grid.ratio
        return Plane((side / P * rx, side / P * ry), ((P - side) / 2 * rx, (P - side) / 2 * ry))


def _place(block: Block) -> tuple[int, int]:
    return block.row, block.column

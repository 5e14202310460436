"""The plan: for every cell whether it is examined and what it sees; complete before any patch is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.schema import BundleCard
from model.policy import choose
from raster.geometry import Region
from raster.grid import Lattice, WorkingGrid
from raster.rows import Rows, bands
from raster.source import Source
from raster.tissue import Tissue
from worker.look import Thumbnail

_NEAR = 4096
"""Side of the level-0 squares in which no-data masks are read."""

EXAMINED, NO_DATA, BACKGROUND = 0, 1, 2
"""Why a cell is, or is not, examined."""


@dataclass(frozen=True)
class Plan:
    """Arrays over the lattice's rows and columns.

    `reason` uint8: EXAMINED, NO_DATA or BACKGROUND. `choice` int8: the 0-based field of view that is read, or the
    heaviest of those that are. `mean_fov` float32: the mean side under F_theta's distribution, in working pixels.
    `weights` (D, rows, columns) float32 where fields of view are mixed, else None. `kind` as in `model.policy.Choice`;
    "tree": adaptive coverage, where `choice` is the level of the node that owns the cell and `mean_fov` its side.
    `bank` is D. `dense` is how many places dense coverage of the same would examine, each with one forward or more.
    """

    kind: str
    bank: int
    reason: NDArray[np.uint8]
    choice: NDArray[np.int8]
    mean_fov: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    dense: int

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For storage; `Plan.of` reads them back."""
        arrays: dict[str, NDArray[Any]] = {"kind": np.array(self.kind), "bank": np.array(self.bank)}
        arrays |= {
            "reason": self.reason,
            "choice": self.choice,
            "mean_fov": self.mean_fov,
            "dense": np.array(self.dense),
        }
        return arrays if self.weights is None else {**arrays, "weights": self.weights}

    @classmethod
    def of(cls, arrays: dict[str, NDArray[Any]]) -> "Plan":
        return cls(
            str(arrays["kind"]),
            int(arrays["bank"]),
            arrays["reason"],
            arrays["choice"],
            arrays["mean_fov"],
            arrays.get("weights"),
            int(arrays["dense"]),
        )

    def fovs_read(self, row: int, column: int) -> tuple[int, ...]:
        """The bank's indices that this cell reads, ascending."""
        if self.kind == "single":
            return (int(self.choice[row, column]),)
        return tuple(range(self.bank))


def make_plan(
    card: BundleCard, lattice: Lattice, policy: str, distribution: NDArray[np.float32], reason: NDArray[np.uint8]
) -> Plan:
    """What every cell sees under `policy`, from F_theta's `distribution` (D, rows, columns)."""
    D, rows, columns = distribution.shape
    choice = choose(distribution.reshape(D, -1), policy, card.mapping)
    weights = None if choice.weights is None else np.ascontiguousarray(choice.weights.T).reshape(D, rows, columns)
    fovs = np.array(lattice.fovs, np.float32)
    mean_fov = np.tensordot(fovs, distribution, axes=1).astype(np.float32)
    examined = int((reason == EXAMINED).sum())
    return Plan(choice.kind, D, reason, choice.index.reshape(rows, columns), mean_fov, weights, examined)


@dataclass(frozen=True)
class Asked:
    """The cells of a lattice that are asked for, by their rows and columns, and the level-0 pixels that count there."""

    lattice: Lattice
    cells: tuple[range, range]
    region_l0: Region


def why_skipped(
    source: Source, grid: WorkingGrid, asked: Sequence[Asked], tissue: Tissue | None, step: int,
    tick: Callable[[], None],
) -> list[NDArray[np.uint8]]:  # fmt: skip
    """For each of `asked`, EXAMINED, NO_DATA or BACKGROUND for every cell of its lattice; NO_DATA beyond its cells.

    No data is exact: a cell is left out only if level 0 has no valid pixel of the region in its window. The region of
    the first holds all others, and is read once. `tissue` as from `tissue_in`, `step` working pixels a pixel of it; a
    cell without any is background. `tick` is called often, and may raise to stop.
    """
    reasons = []
    for one, found in zip(asked, _with_data(source, grid, asked, tick), strict=True):
        (rows, columns), lattice = one.cells, one.lattice
        reason = np.full((lattice.rows, lattice.columns), NO_DATA, np.uint8)
        reason[rows.start : rows.stop, columns.start : columns.stop] = EXAMINED
        reason[~found] = NO_DATA
        if tissue is not None:
            reason[(reason == EXAMINED) & ~any_under(tissue, lattice, step)] = BACKGROUND
        reasons.append(reason)
    return reasons


def tissue_in(thumbnail: Thumbnail) -> Tissue | None:
    """Where there may be tissue; None where the colours cannot tell."""
    if thumbnail.values.shape[2] != 3 or thumbnail.values.dtype != np.uint8:
        return None
    return Tissue(thumbnail.values, thumbnail.valid, thumbnail.fill)


def any_under(mask: Rows, lattice: Lattice, step: int) -> NDArray[np.bool_]:
    """(rows, columns): whether any thumbnail pixel under a cell's window is above 0."""
    height, width = mask.shape
    y0, y1 = _ends(lattice.rows, lattice, step, height)
    x0, x1 = _ends(lattice.columns, lattice, step, width)
    found = np.zeros((lattice.rows, lattice.columns), bool)
    for rows in bands(height):
        until = np.pad((mask[rows] > 0).cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        under = until[:, x1] > until[:, x0]
        for row in np.flatnonzero((y0 < rows.stop) & (y1 > rows.start)).tolist():
            found[row] |= under[max(0, y0[row] - rows.start) : y1[row] - rows.start].any(axis=0)
    return found


def _ends(count: int, lattice: Lattice, step: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    start = np.arange(count, dtype=np.int64) * lattice.stride + lattice.origin
    return np.maximum(start, 0) // step, np.minimum(-(-(start + lattice.patch) // step), length)


def _with_data(
    source: Source, grid: WorkingGrid, asked: Sequence[Asked], tick: Callable[[], None]
) -> list[NDArray[np.bool_]]:
    """For each, (rows, columns): whether level 0 has a valid pixel of its region in the cell's window."""
    if source.info.validity == "none":
        return [np.ones((one.lattice.rows, one.lattice.columns), bool) for one in asked]
    found = [np.zeros((one.lattice.rows, one.lattice.columns), bool) for one in asked]
    area = asked[0].region_l0
    for y in range(area.y, area.y1, _NEAR):
        for x in range(area.x, area.x1, _NEAR):
            tick()
            square = Region(x, y, _NEAR, _NEAR).intersection(area)
            valid = source.read_valid(square)
            for one, marks in zip(asked, found, strict=True):
                part = square.intersection(one.region_l0)
                if part.empty:
                    continue
                if valid is None:
                    _mark(marks, part, grid, one.lattice)
                elif (inside := valid[part.slices(square.x, square.y)]).any():
                    _mark_valid(marks, inside, part, grid, one.lattice)
    return found


def _mark_valid(
    found: NDArray[np.bool_], valid: NDArray[np.bool_], part: Region, grid: WorkingGrid, lattice: Lattice
) -> None:
    """Mark the cells that any valid pixel of `part` may touch, by spans of rows and columns that hold valid pixels."""
    if valid.all():
        _mark(found, part, grid, lattice)
        return
    step = max(1, round(lattice.stride * min(grid.ratio)) // 2)
    for y in range(0, part.height, step):
        strip: NDArray[np.bool_] = np.any(valid[y : y + step], axis=0)
        for x in range(0, part.width, step):
            if strip[x : x + step].any():
                exact = np.argwhere(valid[y : y + step, x : x + step])
                (y0, x0), (y1, x1) = exact.min(axis=0), exact.max(axis=0) + 1
                near = Region.between(int(x0), int(y0), int(x1), int(y1)).shifted(part.x + x, part.y + y)
                _mark(found, near, grid, lattice)


def _mark(found: NDArray[np.bool_], part_l0: Region, grid: WorkingGrid, lattice: Lattice) -> None:
    rx, ry = grid.ratio
    # One working pixel more on each side: a level-0 pixel is read from its two nearest working pixels.
    area_w = Region.snapped_out(part_l0.x / rx - 1, part_l0.y / ry - 1, part_l0.x1 / rx + 1, part_l0.y1 / ry + 1)
    columns, rows = lattice.cells_touching(area_w)
    found[rows.start : rows.stop, columns.start : columns.stop] = True

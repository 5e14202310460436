"""Where an image's locations lie and what is cut out there, in the three geometries; torch-free but for `parity`.

A location is a pixel of the thumbnail, (row, column). Letters: D fields of view, C bands, P patch side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from model.datasets.labelled import LabelledImage
from model.foveation import REACH
from model.geometry import Geometry
from model.resample import area, bilinear
from raster.geometry import Region, Size

__all__ = ["Locations", "Tile", "draw_tile"]


@dataclass(frozen=True)
class Locations:
    """The grid of locations of one image of `size` working pixels.

    `lattice`: a location's centre is the centre of a square of `step` pixels, counted from the image's origin; `center`
    and `parity`: section 4.
    """

    kind: Literal["lattice", "center", "parity"]
    size: Size
    fovs: tuple[int, ...]
    step: int

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        if self.kind == "lattice":
            return -(-self.size.height // self.step), -(-self.size.width // self.step)
        return self._geometry.grid(self.size)

    def cell_of(self, x: float, y: float) -> tuple[int, int]:
        """The location whose cell holds a point of the image."""
        rows, columns = self.shape
        across, down = self.size.width / columns, self.size.height / rows
        if self.kind == "lattice":
            across = down = self.step
        return min(rows - 1, int(y / down)), min(columns - 1, int(x / across))

    def windows(self, location: tuple[int, int]) -> list[Region]:
        """What every field of view covers, the smallest first: there the labels are; may reach outside the image."""
        if self.kind != "lattice":
            return self._geometry.windows(self.size, location)
        row, column = location
        # The centre's double is a whole number.
        x, y = (2 * column + 1) * self.step, (2 * row + 1) * self.step
        return [Region((x - fov) // 2, (y - fov) // 2, fov, fov) for fov in self.fovs]

    def thumbnail(self, image: LabelledImage, cells: Region) -> NDArray[Any]:
        """(rows, columns, C): the thumbnail's part `cells`, as inference makes it."""
        if self.kind == "lattice":
            r = self.step
            return image.pixels(Region(cells.x * r, cells.y * r, cells.width * r, cells.height * r), cells.size)
        rows, columns = self.shape
        if self.kind == "center":
            return image.thumbnail(Size(columns, rows))[cells.slices()]
        whole = image.pixels(Region.of(self.size), self.size)
        return _sampled(whole, Size(columns, rows))[cells.slices()]

    def patches(self, image: LabelledImage, windows: Sequence[Region]) -> NDArray[Any]:
        """(len(windows), P, P, C): what the windows show at the resolution of a patch."""
        side = Size(self.fovs[0], self.fovs[0])
        if self.kind == "lattice":
            return np.stack([image.pixels(window, side) for window in windows])
        # As `model.extract` does at inference: the filter is one of both (section 4.3).
        shrunk = _sampled if self.kind == "parity" else _averaged
        return np.stack([shrunk(image.pixels(window, window.size), side) for window in windows])

    @cached_property
    def _geometry(self) -> Geometry:
        assert self.kind != "lattice"
        return Geometry(self.fovs, self.step, self.kind)


def _sampled(pixels: NDArray[Any], size: Size) -> NDArray[np.float32]:
    """Bilinear and not antialiased, as the authors resample (section 2)."""
    return bilinear(_nchw(pixels), *size.shape)[0].movedim(0, -1).numpy()


def _averaged(pixels: NDArray[Any], size: Size) -> NDArray[np.float32]:
    """Means over areas, for any ratio."""
    return area(_nchw(pixels), *size.shape)[0].movedim(0, -1).numpy()


def _nchw(pixels: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, 0)[None].float()


@dataclass(frozen=True)
class Tile:
    """A part of a grid for one update: `cells` may be drawn, F_theta is shown `seen`, which holds them."""

    cells: Region
    seen: Region


def draw_tile(
    shape: tuple[int, int],
    extent: tuple[int, int],
    random: np.random.Generator,
    around: tuple[int, int] | None = None,
) -> Tile:
    """A random part of a grid of `shape`, of which `extent` rows and columns are seen; the whole grid if that is all.

    The grid is cut into tiles from a random start and one is drawn by its share of the grid; a cell drawn uniformly in
    it is then uniform in the whole grid. Tiles are smaller than what is seen by F_theta's reach, but for the border.
    The tile that holds `around` is taken, if that is given.
    """
    spans = [_draw_span(shape[axis], extent[axis], None if around is None else around[axis], random) for axis in (0, 1)]
    (y, height, y_seen), (x, width, x_seen) = spans
    return Tile(Region(x, y, width, height), Region(x_seen, y_seen, extent[1], extent[0]))


def _draw_span(length: int, seen: int, cell: int | None, random: np.random.Generator) -> tuple[int, int, int]:
    """Along one axis: where the tile starts, its cells, and where what is seen starts."""
    if seen >= length:
        return 0, length, 0
    reach = min(REACH, (seen - 1) // 2)
    side = seen - 2 * reach
    phase = int(random.integers(side))
    cell = int(random.integers(length)) if cell is None else cell
    nominal = (cell + phase) // side * side - phase
    start, end = max(0, nominal), min(length, nominal + side)
    return start, end - start, min(max(0, nominal - reach), length - seen)

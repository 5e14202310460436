"""The learnable data loader: what one update learns from one image, cut out by processes that run ahead of the network.

A sample depends on the seed, the update and its slot in the minibatch alone, so a resumed run, or one with other loader
processes, sees the same. Letters: L images, B locations, D fields of view, C bands, P patch side, Y X cells.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.errors import OptionInvalid
from model.cells import thumbnail_step
from model.datasets.augmentation import Change, draw_change
from model.datasets.labelled import LabelledImage
from model.datasets.pair import Pair
from model.training.config import Joint, TrainConfig
from model.training.images import OpenImages
from model.training.locations import Locations, Tile, draw_tile
from raster.geometry import Region, Size

__all__ = ["JointSamples", "Sample", "gather"]

_CANDIDATES = 64
"""Places of classes that are looked up where locations near them are wanted."""
_WINDOW = 128
"""Cells a side that F_theta sees at most; its parts of a slide's thumbnail then fill no memory."""


class Sample(NamedTuple):
    """Of one image, or, gathered, of L images with one more axis in front."""

    thumbnail: Tensor
    """(Y, X, C) in the bundle's dtype: what F_theta sees of the image."""
    cells: Tensor
    """(B, 2) int64: row and column of each location in `thumbnail`."""
    patches: Tensor
    """(B, D, P, P, C): every field of view, or the only one that is learnt."""
    labels: Tensor
    """(B, P, P) uint8: the window of the smallest field of view."""
    insets: Tensor
    """(B, D, 2) int64: row and column of the smallest window in that of each field of view, in working pixels."""
    noise: Tensor
    """(B, bank) float32: standard Gumbel noise, all the chance that policies need."""


class JointSamples(torch.utils.data.Dataset[Sample]):
    """The samples of joint training by (update, slot); images come in a new order every epoch."""

    def __init__(self, pairs: Sequence[Pair], sizes: Sequence[Size], config: TrainConfig) -> None:
        assert isinstance(config.training, Joint)
        self._config, self._joint, self._card = config, config.training, config.bundle
        step = self._joint.location_step or thumbnail_step(self._card)
        self.grids = [Locations(self._joint.geometry, size, tuple(self._card.fovs), step) for size in sizes]
        self._images = OpenImages(pairs, config)
        shared = self._joint.update == "parity"
        self._drawn = self._joint.locations * (self._joint.location_batches if shared else 1)
        self._check(pairs)

    def _check(self, pairs: Sequence[Pair]) -> None:
        rows, columns = self._common([grid.shape for grid in self.grids])
        if rows * columns < self._drawn:
            raise OptionInvalid(
                f"the smallest of {len(pairs)} images has {rows} x {columns} locations, {self._drawn} are to be drawn",
                hint="Lower training.locations or bundle.foveation.downsample.",
            )
        if self._joint.update == "parity" and len({grid.shape for grid in self.grids}) > 1:
            raise OptionInvalid(
                "training.update parity draws the same locations in all images, and they differ in size",
                hint='Use update "paper", or images of one size.',
            )

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        update, slot = key
        seed = self._config.seed
        random = np.random.default_rng([seed, update, slot])
        # The authors' loop visits the same locations in all images.
        places = np.random.default_rng([seed, update]) if self._joint.update == "parity" else random
        which = self._image(update, slot)
        image, grid = self._images[which], self.grids[which]
        # No draw is made where none are wanted: the plain method's samples stay what they were.
        share = self._joint.class_centred
        wanted = int(places.binomial(self._drawn, share)) if share else 0
        near = self._near_classes(image, grid, places) if wanted else []
        tile = draw_tile(grid.shape, self._extent(update), places, around=near[0] if near else None)
        cells = self._cells(tile, near, wanted, places)
        change = draw_change(self._config.augmentation, self._card.network.in_channels, places)
        noise = random.gumbel(size=(self._drawn, len(self._card.fovs))).astype(np.float32)
        return self._sample(image, grid, tile, cells, change, noise)

    def _image(self, update: int, slot: int) -> int:
        n = len(self.grids)
        epoch, place = divmod(update * self._joint.images + slot, n)
        return int(np.random.default_rng([self._config.seed, epoch]).permutation(n)[place])

    def _extent(self, update: int) -> tuple[int, int]:
        """Rows and columns of the thumbnails of this update: F_theta takes all of them at once, so they agree."""
        return self._common([self.grids[self._image(update, slot)].shape for slot in range(self._joint.images)])

    def _common(self, shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        rows, columns = (min(_WINDOW, *(shape[axis] for shape in shapes)) for axis in (0, 1))
        return (min(rows, columns),) * 2 if self._config.augmentation.right_angles else (rows, columns)

    def _near_classes(
        self, image: LabelledImage, grid: Locations, random: np.random.Generator
    ) -> list[tuple[int, int]]:
        """Locations near pixels of classes that are drawn uniformly, more than will be used."""
        if not image.present:
            return []
        points = [image.places(int(klass), 1, random)[0] for klass in random.choice(image.present, _CANDIDATES)]
        return list(dict.fromkeys(grid.cell_of(x, y) for x, y in points))

    def _cells(
        self, tile: Tile, near: Sequence[tuple[int, int]], wanted: int, random: np.random.Generator
    ) -> NDArray[np.int64]:
        """(B, 2) row and column in the grid, without replacement: `wanted` of those in `near`, if the tile has them."""
        # A cut-off tile at the border may hold fewer cells than are to be drawn.
        area = tile.cells if tile.cells.size.area >= self._drawn else tile.seen
        drawn = random.choice(area.size.area, self._drawn, replace=False)
        uniform = [(area.y + int(k) // area.width, area.x + int(k) % area.width) for k in drawn]
        first = [(y, x) for y, x in near if area.contains(Region(x, y, 1, 1))][:wanted]
        cells = [*first, *(cell for cell in uniform if cell not in first)]
        return np.array(cells[: self._drawn], np.int64)

    def _sample(
        self,
        image: LabelledImage,
        grid: Locations,
        tile: Tile,
        cells: NDArray[np.int64],
        change: Change,
        noise: NDArray[np.float32],
    ) -> Sample:
        policy, side, top = self._joint.policy, self._card.patch_size, self._card.input.value_scale
        read = [int(policy[6:]) - 1] if policy.startswith("fixed:") else range(len(self._card.fovs))
        thumbnail = change.turned(grid.thumbnail(image, tile.seen))
        # Contrast changes about one colour in all that is cut from an image, or its places would grow apart.
        middle = ((thumbnail / top).clip(0, 1) ** change.gamma).mean(axis=(0, 1))
        patches, labels, insets = [], [], []
        for row, column in cells.tolist():
            windows = grid.windows((row, column))
            looked = [windows[d] for d in read]
            shown = [change.turned(patch) for patch in grid.patches(image, looked)]
            patches.append([change.recoloured(patch, top, middle) for patch in shown])
            labels.append(change.turned(image.labels(windows[0], Size(side, side))))
            insets.append([_inset(windows[0], window, change) for window in looked])
        inside = _turned_points(cells - np.array([tile.seen.y, tile.seen.x]), tile.seen.size.shape, change)
        parts = (change.recoloured(thumbnail, top, middle), inside, patches, labels, insets, noise)
        return Sample(*(torch.from_numpy(np.array(part)) for part in parts))


def _inset(smallest: Region, seen: Region, change: Change) -> NDArray[np.int64]:
    """Row and column of the smallest window in the one that is seen, once both are turned."""
    room = seen.height - smallest.height + 1, seen.width - smallest.width + 1
    return _turned_points(np.array([smallest.y - seen.y, smallest.x - seen.x]), room, change)


def _turned_points(points: NDArray[np.int64], shape: tuple[int, int], change: Change) -> NDArray[np.int64]:
    """Rows and columns (…, 2) in an array of `shape`, after `change` has turned it."""
    rows, columns, (height, width) = points[..., 0], points[..., 1], shape
    for _ in range(change.turns % 4):
        rows, columns, height, width = width - 1 - columns, rows, width, height
    return np.stack([rows, width - 1 - columns if change.mirrored else columns], axis=-1)


def gather(samples: Sequence[Sample]) -> Sample:
    """L samples as one, stacked."""
    return Sample(*(torch.stack(parts) for parts in zip(*samples, strict=True)))

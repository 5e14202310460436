"""One image with its labels, opened by one process: pixels and classes of any window, never the whole at once.

Pixels are read through `raster.source`, as inference reads them. The frame is the bundle's working grid (design,
section 2); labels are stored at level 0, and the grid's ratio maps both alike.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import BandsMismatch, OptionInvalid, SpacingMismatch
from foveate.schema import BundleCard, ImageInfo, SegmentOptions
from model.datasets.classes import IGNORE, Labelling, as_channels, channels_of, open_classes, open_objects
from model.datasets.config import Data, Holdout
from model.datasets.gap import GapImage
from model.datasets.glass import GlassImage
from model.datasets.layouts import labelling_of
from model.datasets.pair import Pair
from model.resample import area_shares
from raster.bands import fill_colour
from raster.fit import Fit, fit
from raster.geometry import Region, Size
from raster.grid import WorkingGrid
from raster.image import ImageRef, RasterImage, open_image
from raster.mosaic import MosaicImage, crop_in_the_middle
from raster.source import Plane, Source

__all__ = ["LabelledImage", "class_shares", "open_labelled"]

_LABEL_SHARE = 0.25
"""Of the memory: one band against the image's three."""
_COARSE_SIDE = 1024
_PIECE = 2048
"""Sides of what is read at a time, in pixels of what it is made of."""
_LESS_AT_ONCE = 4.0
"""By which sides are divided where floats are made of the pixels."""
_WHOLE = 1e-6

Classes = NDArray[np.uint8]


class LabelledImage:
    """`size`: the bundle's working grid; `held`: what the network must not learn from, in working pixels, may be empty.

    Classes are the network's channels, whatever values the card gives them. Windows are in working pixels and may reach
    outside the image. For the process and thread that opened it.
    """

    def __init__(
        self,
        pair: Pair,
        source: Source,
        labels: Source,
        grid: WorkingGrid,
        labelling: Labelling,
        parts: list[ImageInfo],
    ) -> None:
        self.name, self.size = pair.name, grid.size
        self.held = _held(grid.size, labelling.holdout, pair.turn)
        self._pair, self._labelling, self._parts = pair, labelling, parts
        self._source, self._labels, self._ratio = source, labels, grid.ratio
        self._thumbnail: NDArray[Any] | None = None

    def close(self) -> None:
        self._labels.close()
        self._source.close()

    def pixels(self, window: Region, size: Size) -> NDArray[Any]:
        """(height, width, C) in the bundle's dtype: `window` as `size` pixels, antialiased; the mean colour outside."""
        scale = self._scale(window, size)
        plane = Plane(scale, self._level_0(window))
        values: list[tuple[Region, NDArray[Any]]] = [
            (part, self._source.read_once(plane, part).values) for part in _pieces(size, max(scale))
        ]
        whole = np.empty((*size.shape, values[0][1].shape[2]), values[0][1].dtype)
        for part, read in values:
            whole[part.slices()] = read
        return whole

    def thumbnail(self, size: Size) -> NDArray[Any]:
        """(height, width, C) float32: the whole image as `size` pixels, means over areas, for any ratio.

        The last one is kept, so do not write to it. Reads the whole image once, at full resolution, piece by piece.
        """
        if self._thumbnail is None or self._thumbnail.shape[:2] != size.shape:
            made = np.zeros((*size.shape, self._source.bands), np.float32)
            for part in _pieces(self.size, _LESS_AT_ONCE):
                rows, down = area_shares(range(part.y, part.y1), self.size.height, size.height)
                columns, across = area_shares(range(part.x, part.x1), self.size.width, size.width)
                pixels = self.pixels(part, part.size).astype(np.float32)
                made[rows, columns] += np.moveaxis(down.numpy() @ np.moveaxis(pixels, 2, 0) @ across.numpy().T, 0, 2)
            self._thumbnail = made
        return self._thumbnail

    def labels(self, window: Region, size: Size) -> Classes:
        """(height, width): the classes of `window` as `size` pixels, IGNORE outside.

        Where an output pixel is a whole number of level-0 pixels: what most of them are, the lower class where two are
        as many, IGNORE where more than half are. Elsewhere: the class at its centre.
        """
        scale, origin = self._scale(window, size), self._level_0(window)
        if min(scale) < 1 - _WHOLE or not all(abs(v - round(v)) < _WHOLE for v in (*scale, *origin)):
            return self._at_centres(window, size, 0)
        (sx, sy), (x0, y0) = map(round, scale), map(round, origin)
        classes = np.empty(size.shape, np.uint8)
        for part in _pieces(size, max(scale)):
            covered = Region(x0 + part.x * sx, y0 + part.y * sy, part.width * sx, part.height * sy)
            classes[part.slices()] = _majority(self._classes(covered), sx, sy)
        return classes

    def learnable(self, window: Region, size: Size) -> Classes:
        """As `labels`, with every pixel that touches `held` ignored."""
        return self._without_held(self.labels(window, size), window)

    @property
    def present(self) -> list[int]:
        """The classes that the network can learn here, as far as the coarse map shows them."""
        return [int(value) for value in np.unique(self._coarse) if value != IGNORE]

    def places(self, klass: int, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """(`count`, 2) x and y in working pixels: random points where a class is to be learnt; (0, 2) if none are."""
        found = self._places.get(klass)
        if found is None:
            return np.empty((0, 2))
        rows, columns = np.divmod(random.choice(found, count), self._coarse.shape[1])
        across, down = self.size.width / self._coarse.shape[1], self.size.height / self._coarse.shape[0]
        return np.stack([(columns + 0.5) * across, (rows + 0.5) * down], axis=1)

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        """(`classes`,) how much of each class there is to learn, in working pixels, estimated on the coarse map."""
        counts = np.bincount(self._coarse.ravel(), minlength=IGNORE + 1)[:classes]
        return np.asarray(np.rint(counts * (self.size.area / self._coarse.size)), np.int64)

    def objects(self) -> NDArray[np.int32] | None:
        """(H, W): numbers of single objects on the working grid, 0 where there is none; None: the data have none."""
        if self._labelling.objects is None:
            return None
        with contextlib.closing(_open_objects(self._pair, self._labelling, self._parts)) as image:
            rows, columns = _centres(Region.of(self.size), self.size, self._ratio)
            numbers = np.zeros(self.size.shape, np.int32)
            for part in _pieces(self.size, max(self._ratio)):
                y, x = rows[part.slices()[0]], columns[part.slices()[1]]
                y, x = np.clip(y, 0, image.info.height - 1), np.clip(x, 0, image.info.width - 1)
                box = Region.between(int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)
                numbers[part.slices()] = image.read(0, box).values[np.ix_(y - box.y, x - box.x)][..., 0]
        return numbers

    # --- the labels of level 0 ------------------------------------------------------------------------------------

    def _classes(self, region_l0: Region, level: int = 0) -> Classes:
        """The classes of a region of a level, IGNORE outside and where the image has no data."""
        plane = Plane(self._labels.info.levels[level].downsample)
        values: Classes = self._labels.read(plane, region_l0).values[..., 0]
        image = Region(0, 0, self._source.info.width, self._source.info.height)
        inside = region_l0.intersection(image)
        if level or self._source.info.validity == "none" or inside.empty:
            return values
        valid = self._source.read_valid(inside)
        if valid is None or valid.all():
            return values
        values = values.copy()
        values[inside.slices(region_l0.x, region_l0.y)][~valid] = IGNORE
        return values

    def _at_centres(self, window: Region, size: Size, level: int) -> Classes:
        """(height, width): what lies at the centres of the pixels, in a level of the labels."""
        down = self._labels.info.levels[level].downsample[0]
        rows, columns = (np.floor(k / down).astype(np.int64) for k in _centres(window, size, self._ratio))
        classes = np.empty(size.shape, np.uint8)
        for part in _pieces(size, max(self._scale(window, size)) / down):
            y, x = rows[part.slices()[0]], columns[part.slices()[1]]
            box = Region.between(int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)
            classes[part.slices()] = self._classes(box, level)[np.ix_(y - box.y, x - box.x)]
        return classes

    @cached_property
    def _coarse(self) -> Classes:
        """The learnable class at the centres of a grid over the whole image, at most 1024 a side."""
        step = math.ceil(max(self.size.width, self.size.height) / _COARSE_SIDE)
        size = Size(math.ceil(self.size.width / step), math.ceil(self.size.height / step))
        window = Region.of(self.size)
        level = self._labels.level_for(self._scale(window, size))
        return self._without_held(self._at_centres(window, size, level), window)

    @cached_property
    def _places(self) -> dict[int, NDArray[np.intp]]:
        flat = self._coarse.ravel()
        return {klass: np.flatnonzero(flat == klass) for klass in self.present}

    def _without_held(self, classes: Classes, window: Region) -> Classes:
        if self.held.empty:
            return classes
        height, width = classes.shape
        x, y = width / window.width, height / window.height
        held = self.held.shifted(-window.x, -window.y)
        covered = Region.snapped_out(held.x * x, held.y * y, held.x1 * x, held.y1 * y)
        classes = classes.copy()
        classes[covered.intersection(Region(0, 0, width, height)).slices()] = IGNORE
        return classes

    def _scale(self, window: Region, size: Size) -> tuple[float, float]:
        """Level-0 pixels per output pixel."""
        (rx, ry) = self._ratio
        return window.width / size.width * rx, window.height / size.height * ry

    def _level_0(self, window: Region) -> tuple[float, float]:
        return window.x * self._ratio[0], window.y * self._ratio[1]


def open_labelled(pair: Pair, data: Data, card: BundleCard, memory_bytes: int = 256_000_000) -> LabelledImage:
    """The pair, ready to be read; `memory_bytes` bound what is kept decoded. Close it in the end.

    ImageErrors and FitErrors as at inference, OptionInvalid for labels that do not belong to the image.
    """
    labelling, channels = labelling_of(data), channels_of(card)
    options = SegmentOptions(spacing=data.spacing, bands=data.bands, rescale=data.rescale)
    with contextlib.ExitStack() as opened:
        handles = [_joined([open_image(ImageRef(path)) for path in pair.images], pair)]
        opened.callback(handles[0].close)
        fitted = _fitted(handles[0].info, card, options)
        source = Source(
            # The handle that was opened for its description is the first that is read from.
            lambda: handles.pop() if handles else _joined([open_image(ImageRef(path)) for path in pair.images], pair),
            fitted.bands.convert,
            fill_colour(card.input),
            round(memory_bytes * (1 - _LABEL_SHARE)),
        )
        opened.callback(source.close)
        parts = _part_infos(pair) if len(pair.images) > 1 or pair.crop else [source.info]
        labels = Source(
            lambda: _open_labels(pair, labelling, parts, source),
            lambda values: as_channels(values, channels, pair.name, card),
            np.array([IGNORE], np.uint8),
            round(memory_bytes * _LABEL_SHARE),
        )
        opened.callback(labels.close)
        grid = WorkingGrid(Size(source.info.width, source.info.height), fitted.ratio)
        made = LabelledImage(pair, source, labels, grid, labelling, parts)
        opened.pop_all()
        return made


def class_shares(images: Iterable[LabelledImage], classes: int) -> list[float]:
    """Share of each class among the pixels that the network learns from, estimated on coarse maps."""
    counts = sum((image.class_counts(classes) for image in images), np.zeros(classes, np.int64))
    if not counts.any():
        raise OptionInvalid("no pixel of the training images has a class", hint="Check data.labels and the holdout.")
    return [float(count) for count in counts / counts.sum()]


def _open_labels(pair: Pair, labelling: Labelling, parts: list[ImageInfo], source: Source) -> RasterImage:
    """The pair's classes as an image; `parts` describe its images, `source` reads them."""
    found = [open_classes(path, labelling, info) for path, info in zip(pair.labels, parts, strict=True)]
    image = _joined(found, pair)
    if labelling.gap and labelling.gap_value is not None and pair.turn is not None:
        objects = _open_objects(pair, labelling, parts)
        image = GapImage(image, objects, labelling.gap, labelling.gap_value)
    return image if labelling.glass is None else GlassImage(image, source, labelling.glass)


def _open_objects(pair: Pair, labelling: Labelling, parts: list[ImageInfo]) -> RasterImage:
    """The numbers of the pair's single objects as an image."""
    found = [
        open_objects(path, labelling, info, k) for k, (path, info) in enumerate(zip(pair.labels, parts, strict=True))
    ]
    return _joined(found, pair)


def _joined(parts: list[RasterImage], pair: Pair) -> RasterImage:
    """The parts as one image, cropped as the pair says."""
    try:
        image = parts[0] if len(parts) == 1 else MosaicImage(parts, pair.columns)
        return image if pair.crop is None else crop_in_the_middle(image, pair.crop)
    except BaseException:
        for part in parts:
            part.close()
        raise


def _part_infos(pair: Pair) -> list[ImageInfo]:
    infos = []
    for path in pair.images:
        with contextlib.closing(open_image(ImageRef(path))) as image:
            infos.append(image.info)
    return infos


def _fitted(info: ImageInfo, card: BundleCard, options: SegmentOptions) -> Fit:
    """As inference fits it; the remedies are named as a recipe spells them."""
    try:
        return fit(info, card, options)
    except SpacingMismatch as error:
        raise SpacingMismatch(error.message, hint=error.hint.replace("--spacing", "data.spacing")) from error
    except BandsMismatch as error:
        hint = error.hint.replace("--bands", "data.bands").replace("--rescale", "data.rescale")
        raise BandsMismatch(error.message, hint=hint) from error


def _held(size: Size, holdout: Holdout | None, turn: int | None) -> Region:
    if holdout is None or turn is None:
        return Region(0, 0, 0, 0)
    if holdout.kind == "image":
        return Region.of(size) if turn % holdout.part == holdout.part - 1 else Region(0, 0, 0, 0)
    width, height = size.width // holdout.part, size.height // holdout.part
    right, low = (turn % 4) in (1, 2), (turn % 4) in (2, 3)
    return Region(size.width - width if right else 0, size.height - height if low else 0, width, height)


def _pieces(size: Size, scale: float) -> Iterator[Region]:
    """Rectangles that tile `size`, each made of about `_PIECE` pixels a side if a pixel is made of `scale`."""
    side = max(1, int(_PIECE / max(scale, 1.0)))
    for y in range(0, size.height, side):
        for x in range(0, size.width, side):
            yield Region.between(x, y, min(x + side, size.width), min(y + side, size.height))


def _centres(window: Region, size: Size, ratio: tuple[float, float]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The level-0 rows and columns that hold the centres of the output pixels."""
    rows = (window.y + (np.arange(size.height) + 0.5) * window.height / size.height) * ratio[1]
    columns = (window.x + (np.arange(size.width) + 0.5) * window.width / size.width) * ratio[0]
    return np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)


def _majority(classes: Classes, across: int, down: int) -> Classes:
    """(h, w): the commonest class in cells of `down` x `across`; IGNORE where more than half of the cell is."""
    if (across, down) == (1, 1):
        return classes
    height, width = classes.shape[0] // down, classes.shape[1] // across
    present = np.flatnonzero(np.bincount(classes.ravel(), minlength=IGNORE + 1))
    slots = np.zeros(IGNORE + 1, np.int64)
    slots[present] = np.arange(len(present)) * (height * width)
    cells = (np.arange(height * down) // down * width)[:, None] + np.arange(width * across) // across
    counts = np.bincount((slots[classes] + cells).ravel(), minlength=len(present) * height * width)
    counts = counts.reshape(len(present), height, width)
    learnt = counts[present != IGNORE]
    if not len(learnt):
        return np.full((height, width), IGNORE, np.uint8)
    majority = present[learnt.argmax(axis=0)].astype(np.uint8)
    majority[learnt.sum(axis=0) * 2 < across * down] = IGNORE
    return np.asarray(majority)

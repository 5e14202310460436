"""The chunked source: any region at any scale, decoded once, antialiased, from the nearest finer level, by any thread.

Two kinds of chunks live in one cache: chunks of the file's levels (aligned to the file's own blocks, already in the
bundle's bands and dtype, no-data pixels in the fill colour) and chunks of planes (a plane is a level-0 grid at another
scale). A plane pixel depends on its place alone, never on who asked for it: masks do not depend on blocks or batches.
"""

import contextlib
import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import ImageDamaged, ImageUnreadable
from foveate.schema import ImageInfo
from raster.cache import ChunkCache, Use
from raster.geometry import Region
from raster.image import RasterImage
from raster.resample import footprint, resample
from raster.shelf import Shelf

LEVEL_TOLERANCE = 1.02
"""A level may be this much coarser than asked: real slides have downsamples such as 4.0003."""
FAR = 8.0
"""Beyond this ratio to the nearest level, halved levels are made on the way, so that a chunk needs few pixels."""
_CHUNK = 256
"""Side of a plane's chunks, and about the least of a level's, which are whole tiles of the file."""
_REACH = 2
"""Pixels of a plane, at least as far as one of them sees."""
_LEAST = 200
_DAMAGE_SHARE = 0.01


@dataclass(frozen=True)
class Plane:
    """A pixel grid over level 0: pixel (i, j) covers [origin + i * scale, origin + (i + 1) * scale) along x, j along y.

    `scale` and `origin` are (x, y) in level-0 pixels.
    """

    scale: tuple[float, float]
    origin: tuple[float, float] = (0.0, 0.0)

    def box_l0(self, region: Region) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of a region of this plane, in level-0 pixels."""
        (sx, sy), (ox, oy) = self.scale, self.origin
        return ox + region.x * sx, oy + region.y * sy, ox + region.x1 * sx, oy + region.y1 * sy


Reach = dict[Plane | int, Region]
"""A level-0 rectangle for each grid that chunks lie on: a plane, or a level of the file by its index."""


@dataclass(frozen=True)
class Sample:
    """Pixels of a plane.

    `values`: (height, width, bands) in the bundle's dtype, no data in the fill colour. `valid`: (height, width)
    float32, share of each pixel that is data; None: all of it. `damaged`: level-0 regions near these pixels that cannot
    be decoded.
    """

    values: NDArray[Any]
    valid: NDArray[np.float32] | None
    damaged: frozenset[Region]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.valid is None else self.valid.nbytes)


@dataclass(frozen=True)
class _Step:
    """What a region of a plane is resampled from: `box` and `wanted`, in pixels of `plane`.

    `plane` is the file's level `level`, or that level halved so many times.
    """

    level: int
    halvings: int
    plane: Plane
    box: tuple[float, float, float, float]
    wanted: Region


class Source:
    """One image through one band plan; thread-safe, a file handle a thread; `close` ends all of them.

    `open_handle` opens the image again; `convert` maps (height, width, file bands) to (height, width, bundle bands);
    `fill` (bands,) is the colour of no data, in the bundle's dtype. `memory_bytes` bound the chunks that are kept;
    those beyond it, and still of use, lie in a file in the directory `shelf`, or without one are decoded again. Raises
    ImageDamaged as soon as what cannot be decoded, at any level, covers more than 1 % of level 0's tiles; less is
    filled and reported by the samples that it touches; its words call the image `name`, if that is given.
    """

    def __init__(
        self,
        open_handle: Callable[[], RasterImage],
        convert: Callable[[NDArray[Any]], NDArray[Any]],
        fill: NDArray[Any],
        memory_bytes: int,
        shelf: Path | None = None,
        *,
        name: str | None = None,
    ) -> None:
        self._open_handle = open_handle
        self._convert = convert
        self.fill = fill
        aside = None if shelf is None else Shelf[Sample](shelf)
        self._cache: ChunkCache[Sample] = ChunkCache(memory_bytes, lambda sample: sample.nbytes, aside)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._handles: list[RasterImage] = []
        self._damaged: set[Region] = set()
        self._pixels_decoded = Counter[int]()
        self.info: ImageInfo = self._handle().info
        self._file_name = self.info.name
        if name is not None:
            self.info = self.info.model_copy(update={"name": name})

    @property
    def bands(self) -> int:
        """Of what it reads: the bundle's."""
        return int(self.fill.size)

    def read(self, plane: Plane, region: Region) -> Sample:
        """The pixels of `region` of `plane`; what lies outside the image is fill, and not valid."""
        level = self.level_for(plane.scale)
        if self._is_level(level, plane):
            return self._read_level(level, region)
        near = self._near(plane)
        parts = [chunk.intersection(near) for chunk in _chunks_under(region.intersection(near), _CHUNK, _CHUNK)]
        return self._gather(region, [(part, self._plane_chunk(plane, part)) for part in parts])

    def read_once(self, plane: Plane, region: Region) -> Sample:
        """As `read`, for a plane of a single use: its chunks are not kept, those of the levels are."""
        return self._resample(plane, region)

    def read_valid(self, region_l0: Region) -> NDArray[np.bool_] | None:
        """(height, width), True where level 0 is data; None: everywhere. `region_l0` lies inside the image.

        A tile that cannot be decoded counts as data, so that it is read, and then reported as damage.
        """
        if self.info.validity == "none":
            return None
        try:
            return self._handle().read_valid(0, region_l0)
        except ImageUnreadable:
            return self._valid_by_tile(region_l0)

    def _valid_by_tile(self, region_l0: Region) -> NDArray[np.bool_]:
        found = np.ones(region_l0.size.shape, bool)
        for tile in _chunks_under(region_l0, *self.info.levels[0].tile):
            part = tile.intersection(region_l0)
            with contextlib.suppress(ImageUnreadable):
                valid = self._handle().read_valid(0, part)
                found[part.slices(region_l0.x, region_l0.y)] = True if valid is None else valid
        return found

    def level_for(self, scale: tuple[float, float]) -> int:
        """The index of the file's nearest level that is as fine as `scale`, give or take 2 %."""
        fits = [
            k
            for k, level in enumerate(self.info.levels)
            if all(d <= s * LEVEL_TOLERANCE for d, s in zip(level.downsample, scale, strict=True))
        ]
        return max(fits, key=lambda k: self.info.levels[k].downsample, default=0)

    def take_pixels_decoded(self, levels: Collection[int] | None = None) -> int:
        """Pixels that the codec has delivered since this was last asked, of all levels or of some; whole blocks."""
        with self._lock:
            decoded, self._pixels_decoded = self._pixels_decoded, Counter[int]()
        return sum(count for level, count in decoded.items() if levels is None or level in levels)

    def reach(self, plane: Plane, region: Region, *, once: bool = False) -> Reach:
        """The level-0 rectangle of every grid that meets all of its chunks which `read` (`read_once`, if `once`) of
        `region` may touch. For `release`.
        """
        level = self.level_for(plane.scale)
        if self._is_level(level, plane):
            return {level: Region.snapped_out(*plane.box_l0(region))}
        own: Reach = {} if once else {plane: Region.snapped_out(*plane.box_l0(region))}
        step = self._step(plane, region if once else _whole_chunks(region))
        if step.halvings:
            return own | self.reach(step.plane, step.wanted)
        return own | {step.level: Region.snapped_out(*step.plane.box_l0(step.wanted))}

    def release(self, soon: Reach, later: Reach) -> None:
        """Forget the chunks that meet neither rectangle of their grid; those in `later` are the first to make room."""

        def use_of(key: Any) -> Use:
            grid, box = key[0], self._box_l0(key)
            if grid in soon and _meets(box, soon[grid]):
                return Use.SOON
            return Use.LATER if grid in later and _meets(box, later[grid]) else Use.NEVER

        self._cache.settle(use_of)

    def forget(self) -> None:
        """Give the cached chunks' memory back; they are computed again when somebody asks."""
        self._cache.clear()

    def close(self) -> None:
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()
        self._cache.close()

    def _box_l0(self, key: Any) -> tuple[float, float, float, float]:
        """Where a chunk of the cache lies in level 0."""
        grid, part = key
        plane = grid if isinstance(grid, Plane) else Plane(self.info.levels[grid].downsample)
        return plane.box_l0(part)

    def _handle(self) -> RasterImage:
        handle: RasterImage | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = self._open_handle()
            with self._lock:
                self._handles.append(handle)
        return handle

    # --- planes ---------------------------------------------------------------------------------------------------

    def _plane_chunk(self, plane: Plane, part: Region) -> Sample:
        return self._cache.get((plane, part), lambda: self._resample(plane, part))

    def _resample(self, plane: Plane, region: Region) -> Sample:
        """A region of a plane from the pixels one step finer: a level of the file, or a halved level of our own."""
        step = self._step(plane, region)
        finer = self.read(step.plane, step.wanted) if step.halvings else self._read_level(step.level, step.wanted)
        values = resample(finer.values, step.wanted, step.box, region.size)
        valid = None if finer.valid is None else resample(finer.valid, step.wanted, step.box, region.size)
        return Sample(values, valid, finer.damaged)

    def _step(self, plane: Plane, region: Region) -> _Step:
        level = self.level_for(plane.scale)
        scale = self.info.levels[level].downsample
        ratio = (plane.scale[0] / scale[0], plane.scale[1] / scale[1])
        halvings = math.floor(math.log2(min(ratio) / 2)) if min(ratio) >= FAR else 0
        scale = (scale[0] * 2**halvings, scale[1] * 2**halvings)
        x0, y0, x1, y1 = plane.box_l0(region)
        box = (x0 / scale[0], y0 / scale[1], x1 / scale[0], y1 / scale[1])
        wanted = footprint(box, (ratio[0] / 2**halvings, ratio[1] / 2**halvings))
        return _Step(level, halvings, Plane(scale), box, wanted)

    def _near(self, plane: Plane) -> Region:
        """The pixels of a plane that may see anything of the image; all others are fill."""
        (sx, sy), (ox, oy) = plane.scale, plane.origin
        inside = Region.snapped_out(-ox / sx, -oy / sy, (self.info.width - ox) / sx, (self.info.height - oy) / sy)
        return inside.grown(_REACH)

    def _is_level(self, level: int, plane: Plane) -> bool:
        return self.info.levels[level].downsample == plane.scale and plane.origin == (0.0, 0.0)

    # --- levels ---------------------------------------------------------------------------------------------------

    def _read_level(self, level: int, region: Region) -> Sample:
        info = self.info.levels[level]
        width, height = (_whole_tiles(tile) for tile in info.tile)
        level_region = Region(0, 0, info.width, info.height)
        parts = [p.intersection(level_region) for p in _chunks_under(region.intersection(level_region), width, height)]
        chunks = [(part, self._cache.get((level, part), partial(self._decode, level, part))) for part in parts]
        return self._gather(region, chunks)

    def _decode(self, level: int, part: Region) -> Sample:
        """A chunk of a level; if it cannot be decoded whole, tile by tile, with the bad ones filled."""
        try:
            return self._decoded(level, part)
        except ImageUnreadable as error:
            first_error = error
        info = self.info.levels[level]
        pieces, bad = [], set()
        for tile in _chunks_under(part, *info.tile):
            piece = tile.intersection(part)
            try:
                pieces.append((piece, self._decoded(level, piece)))
            except ImageUnreadable:
                bad.add(self._to_l0(level, piece))
        self._report_damage(bad, first_error)
        gathered = self._gather(part, pieces)
        return Sample(gathered.values, gathered.valid, frozenset(bad))

    def _decoded(self, level: int, part: Region) -> Sample:
        pixels = self._handle().read(level, part)
        with self._lock:
            self._pixels_decoded[level] += part.size.area if pixels.decoded is None else pixels.decoded
        values = self._convert(pixels.values)
        if pixels.valid is None:
            return Sample(values, None, frozenset())
        values = np.where(pixels.valid[..., None], values, self.fill)
        return Sample(values, pixels.valid.astype(np.float32), frozenset())

    def _to_l0(self, level: int, region: Region) -> Region:
        dx, dy = self.info.levels[level].downsample
        outside = Region.snapped_out(region.x * dx, region.y * dy, region.x1 * dx, region.y1 * dy)
        return outside.intersection(Region(0, 0, self.info.width, self.info.height))

    def _report_damage(self, bad: set[Region], error: ImageUnreadable) -> None:
        with self._lock:
            self._damaged |= bad
            damaged = sorted(self._damaged)
        check_damage(damaged, self.info, error.message.replace(self._file_name, self.info.name))

    def _gather(self, region: Region, chunks: list[tuple[Region, Sample]]) -> Sample:
        """One sample over `region` out of chunks; what no chunk covers is fill, and not valid."""
        if len(chunks) == 1 and chunks[0][0] == region:
            return chunks[0][1]
        values = np.empty((region.height, region.width, self.fill.size), self.fill.dtype)
        covered = sum(part.intersection(region).size.area for part, _ in chunks) == region.size.area
        if not covered:
            values[:] = self.fill
        all_valid = covered and all(sample.valid is None for _, sample in chunks)
        valid = None if all_valid else np.zeros(region.size.shape, np.float32)
        for part, sample in chunks:
            common = part.intersection(region)
            here, there = common.slices(region.x, region.y), common.slices(part.x, part.y)
            values[here] = sample.values[there]
            if valid is not None:
                valid[here] = 1.0 if sample.valid is None else sample.valid[there]
        damaged = frozenset().union(*(sample.damaged for _, sample in chunks))
        return Sample(values, valid, damaged)


def check_damage(damaged: list[Region], info: ImageInfo, reason: str) -> None:
    """Raise ImageDamaged, naming the regions, if `damaged` (level-0 px, of any level) lies on more than 1 % of level
    0's tiles."""
    tile_w, tile_h = info.levels[0].tile
    tiles = math.ceil(info.width / tile_w) * math.ceil(info.height / tile_h)
    bad = {(tile.x, tile.y) for region in damaged for tile in _chunks_under(region, tile_w, tile_h)}
    if len(bad) > _DAMAGE_SHARE * tiles:
        places = ", ".join(f"({r.x}, {r.y}) {r.width}x{r.height}" for r in damaged[:3])
        raise ImageDamaged(
            f"{info.name}: what cannot be decoded covers {len(bad)} of {tiles} tiles, among them {places}: {reason}",
            hint="Copy or export the file again; up to 1 % of damaged tiles would be left out of the mask.",
        )


def _whole_chunks(region: Region) -> Region:
    """The chunks of a plane under `region`, together."""
    x0, y0 = (k // _CHUNK * _CHUNK for k in (region.x, region.y))
    x1, y1 = (-(-k // _CHUNK) * _CHUNK for k in (region.x1, region.y1))
    return Region.between(x0, y0, x1, y1)


def _meets(box: tuple[float, float, float, float], region: Region) -> bool:
    return box[0] < region.x1 and region.x < box[2] and box[1] < region.y1 and region.y < box[3]


def _whole_tiles(tile: int) -> int:
    return tile * math.ceil(_LEAST / tile)


def _chunks_under(region: Region, width: int, height: int) -> Iterator[Region]:
    """The chunks of a fixed grid that meet `region`, row by row."""
    if region.empty:
        return
    for row in range(region.y // height, -(-region.y1 // height)):
        for column in range(region.x // width, -(-region.x1 // width)):
            yield Region(column * width, row * height, width, height)

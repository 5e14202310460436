"""Probabilities of a labelled image, strip by strip, through the code that inference runs.

In the geometry `lattice` bands of cells are forwarded and finished from top to bottom, so memory follows the image's
width alone; `center` and `parity` hold whole images (`model.aggregate`). Letters: H W pixels, K classes, D fields of
view, N patches.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.schema import BundleCard
from model.accumulator import BlockSums
from model.aggregate import infer, policy_weights
from model.cells import Distribution, cell_distribution, thumbnail_step
from model.datasets.labelled import LabelledImage
from model.geometry import Geometry
from model.lanes import Lanes
from model.policy import TAU_END, Choice, choose
from model.predictor import PatchBatch, Predictor
from model.resample import low_resolution
from model.shots import Shot, batch_of, cell_shots
from raster.geometry import Region, Size
from raster.grid import Lattice, make_lattice

__all__ = [
    "Effort",
    "GeometryName",
    "Member",
    "Sampling",
    "Span",
    "Strip",
    "location_distribution",
    "location_windows",
    "predict_strips",
]

GeometryName = Literal["lattice", "center", "parity"]

Span = tuple[int, int]
"""First pixel and the one after the last."""

_BATCH = 8
_STRIP = 256
"""Rows of a strip."""
_BAND_BYTES = 128 << 20
"""Open sums of a band of cells, where one row of cells leaves a choice."""


@dataclass(frozen=True)
class Sampling:
    """Which places of an image are forwarded."""

    geometry: GeometryName = "lattice"
    overlap: float = 0.25
    """Of the lattice."""
    step: int | None = None
    """Of `center` and `parity`, in pixels; null: the smallest field of view."""


@dataclass(frozen=True)
class Member:
    """A network with its policy; several make an ensemble, whose scores are their mean."""

    predictor: Predictor
    policy: str
    tau: float = TAU_END


@dataclass(frozen=True)
class Strip:
    """Rows of an image from `y` on: probabilities (K, rows, W) float32."""

    y: int
    scores: NDArray[np.float32]


@dataclass
class Effort:
    """What prediction has cost so far; grows while strips are taken."""

    forwards: int = 0
    """Patches that went through a network."""
    seconds: float = 0.0
    """Wall time of reading and forwarding, not of counting."""
    patches_by_fov: list[int] = field(default_factory=list)
    """Patches read, by the bank's index."""

    def note(self, by_fov: NDArray[np.int64], forwards: int) -> None:
        self.forwards += forwards
        longest = max(len(by_fov), len(self.patches_by_fov))
        total = np.zeros(longest, np.int64)
        total[: len(by_fov)] += by_fov
        total[: len(self.patches_by_fov)] += np.array(self.patches_by_fov, np.int64)
        self.patches_by_fov = total.tolist()


def predict_strips(
    members: Sequence[Member], image: LabelledImage, sampling: Sampling, effort: Effort
) -> Iterator[Strip]:
    """The image's probabilities from top to bottom; every row once. `effort` grows on the way.

    Raises OptionInvalid where a bank or a mapping cannot follow a policy, or a grid leaves holes.
    """
    predict = _lattice_strips if sampling.geometry == "lattice" else _whole_strips
    started = time.perf_counter()
    streams = [_in_steps(predict(member, image, sampling, effort), image.size.height) for member in members]
    for parts in zip(*streams, strict=True):
        scores = parts[0].scores if len(parts) == 1 else np.mean([part.scores for part in parts], axis=0)
        effort.seconds += time.perf_counter() - started
        yield Strip(parts[0].y, scores)
        started = time.perf_counter()


def _in_steps(strips: Iterator[Strip], height: int) -> Iterator[Strip]:
    """The same rows in strips of one height, so that the strips of several networks go together."""
    held: list[NDArray[np.float32]] = []
    y, rows = 0, 0
    for strip in strips:
        held.append(strip.scores)
        rows += strip.scores.shape[1]
        while rows >= _STRIP or (rows and y + rows == height):
            joined = np.concatenate(held, axis=1) if len(held) > 1 else held[0]
            yield Strip(y, joined[:, :_STRIP])
            held = [joined[:, _STRIP:]]
            y, rows = y + min(rows, _STRIP), max(0, rows - _STRIP)


# --- lattice ----------------------------------------------------------------------------------------------------------


def _lattice_strips(member: Member, image: LabelledImage, sampling: Sampling, effort: Effort) -> Iterator[Strip]:
    predictor, card = member.predictor, member.predictor.card
    lattice = make_lattice(image.size, card.patch_size, tuple(card.fovs), sampling.overlap)
    choice = _choice(member, image, lattice)
    mixed = 1 if choice.weights is None else len(card.fovs)
    batch = predictor.best_batch(_BATCH, mixed)
    carried: NDArray[np.float32] | None = None
    for rows in _bands(lattice, len(card.classes)):
        top = rows.start * lattice.stride
        bottom = min((rows.stop - 1) * lattice.stride + lattice.patch, image.size.height)
        band = Size(image.size.width, bottom - top)
        sums = BlockSums(lambda _, band=band: predictor.open_block(band, lattice.overlap_px))  # type: ignore[misc]
        groups = _groups(lattice, rows, choice, len(card.fovs), batch)
        reading = ((group, _batch(card, image, lattice, group, top)) for group in groups)
        with Lanes(predictor.device) as lanes:
            for (group, patches), scores in lanes.map(lambda read: predictor.scores(read[1]), reading):
                predictor.add(sums, patches, scores)
                seen = np.bincount([fov for shot in group for fov in shot.fovs], minlength=len(card.fovs))
                effort.note(seen, len(group))
        total = sums.at(1).part(Region.of(band)).copy()
        if carried is not None:
            total[:, : carried.shape[1]] += carried
        finished = bottom - top if rows.stop == lattice.rows else rows.stop * lattice.stride - top
        carried = total[:, finished:]
        yield Strip(top, total[:-1, :finished] / total[-1:, :finished])


def _choice(member: Member, image: LabelledImage, lattice: Lattice) -> Choice:
    card = member.predictor.card
    step = thumbnail_step(card)
    D, cells = len(lattice.fovs), lattice.rows * lattice.columns
    if card.foveation is None:
        distribution = np.full((D, cells), 1 / D, np.float32)
    else:
        distribution = cell_distribution(member.predictor, thumbnail_of(image, step), step, lattice).reshape(D, cells)
    return choose(distribution, member.policy, card.mapping, tau=member.tau)


def thumbnail_of(image: LabelledImage, step: int) -> NDArray[Any]:
    """What F_theta sees, (height, width, C); the last pixels may hang over the image's border."""
    size = _thumbnail_size(image.size, step)
    return image.pixels(Region(0, 0, size.width * step, size.height * step), size)


def _thumbnail_size(size: Size, step: int) -> Size:
    return Size(-(-size.width // step), -(-size.height // step))


def _bands(lattice: Lattice, classes: int) -> Iterator[range]:
    """Rows of cells that are summed at once: as many as the memory allows, one at least."""
    row_bytes = 4 * (classes + 1) * lattice.size.width * lattice.stride
    count = max(1, _BAND_BYTES // row_bytes)
    for first in range(0, lattice.rows, count):
        yield range(first, min(first + count, lattice.rows))


def _groups(lattice: Lattice, rows: range, choice: Choice, D: int, batch: int) -> Iterator[list[Shot]]:
    shots = [
        shot for row in rows for column in range(lattice.columns) for shot in _shots(lattice, row, column, choice, D)
    ]
    for start in range(0, len(shots), batch):
        yield shots[start : start + batch]


def _shots(lattice: Lattice, row: int, column: int, choice: Choice, D: int) -> Iterator[Shot]:
    cell = row * lattice.columns + column
    fovs = (int(choice.index[cell]),) if choice.kind == "single" else tuple(range(D))
    return cell_shots(row, column, fovs, None if choice.weights is None else choice.weights[cell])


def _batch(card: BundleCard, image: LabelledImage, lattice: Lattice, group: list[Shot], top: int) -> PatchBatch:
    side = Size(card.patch_size, card.patch_size)
    windows = [lattice.window(shot.column, shot.row) for shot in group]
    patches = [
        [image.pixels(_seen(window, card.fovs[fov]), side) for fov in shot.fovs]
        for shot, window in zip(group, windows, strict=True)
    ]
    return batch_of(group, patches, [(window.x, window.y - top) for window in windows])


def _seen(window: Region, side: int) -> Region:
    """The field of view around a cell's window; half a pixel up and left of its centre where sides are odd and even."""
    return Region(window.x + (window.width - side) // 2, window.y + (window.height - side) // 2, side, side)


# --- center and parity ------------------------------------------------------------------------------------------------


class _Uniform(nn.Module):
    """Stands for F_theta where a network has none: the policy will not read it."""

    def __init__(self, fovs: int) -> None:
        super().__init__()
        self.fovs = fovs

    def forward(self, image_NCYX: Tensor) -> Tensor:
        shape = (image_NCYX.shape[0], self.fovs, *image_NCYX.shape[2:])
        return torch.full(shape, 1 / self.fovs, device=image_NCYX.device)


def _whole_strips(member: Member, image: LabelledImage, sampling: Sampling, effort: Effort) -> Iterator[Strip]:
    predictor, card = member.predictor, member.predictor.card
    assert sampling.geometry != "lattice"
    geometry = Geometry(bank=tuple(card.fovs), step=thumbnail_step(card), kind=sampling.geometry)
    step = sampling.step or card.patch_size
    rules = policy_weights(member.policy, len(card.fovs), card.mapping, tau=member.tau)
    found = infer(
        predictor.normalised(image.pixels(Region.of(image.size), image.size))[0],
        predictor.foveation or _Uniform(len(card.fovs)),
        predictor.network,
        geometry,
        rules,
        coarse_step=step,
        explicit=card.mapping == "explicit",
        scale_channel=card.network.scale_channel,
        batch=_BATCH,
    )
    locations = int(np.prod(geometry.stepping(step).grid(image.size)))
    effort.note(np.zeros(0, np.int64), locations * len(rules))
    # Where no window lies (`parity` alone) the scores are 0, and the lowest class wins as in the authors' code.
    votes = found.votes.clamp(min=1)
    for y in range(0, image.size.height, _STRIP):
        rows = slice(y, y + _STRIP)
        yield Strip(y, (found.scores[:, rows] / votes[rows].to(found.scores.device)).cpu().numpy())


def location_distribution(predictor: Predictor, image: LabelledImage, geometry: GeometryName) -> NDArray[np.float32]:
    """(D, Y, X): F_theta's probabilities at every location of its own grid."""
    step = thumbnail_step(predictor.card)
    if geometry == "lattice":
        return Distribution(predictor, thumbnail_of(image, step)).everywhere()
    assert predictor.foveation is not None
    pixels = predictor.normalised(image.pixels(Region.of(image.size), image.size))
    with torch.inference_mode():
        low = low_resolution(pixels, step, antialias=geometry == "center")
        probabilities: Tensor = predictor.foveation(low)
    return probabilities[0].cpu().numpy()


def location_windows(card: BundleCard, size: Size, geometry: GeometryName, step: int) -> tuple[list[Span], list[Span]]:
    """Rows and columns of the smallest field of view's window at every location of F_theta's grid, cut to the image.

    `step` is that F_theta's, which may belong to another network of the same bank.
    """
    if geometry == "lattice":
        P = card.patch_size
        grid = _thumbnail_size(size, step)
        rows, columns = (
            [_cut((2 * k + 1) * step // 2 - P // 2, P, length) for k in range(count)]
            for count, length in ((grid.height, size.height), (grid.width, size.width))
        )
        return rows, columns
    paper = Geometry(bank=tuple(card.fovs), step=step, kind=geometry)
    down, across = paper.grid(size)
    first_column = [paper.score_window(size, (row, 0)) for row in range(down)]
    first_row = [paper.score_window(size, (0, column)) for column in range(across)]
    return (
        [_cut(window.y, window.height, size.height) for window in first_column],
        [_cut(window.x, window.width, size.width) for window in first_row],
    )


def _cut(start: int, extent: int, length: int) -> Span:
    return min(max(0, start), length), max(0, min(start + extent, length))

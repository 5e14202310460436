"""A whole image in memory through F_theta and the segmentation network, in the geometries `center` and `parity`.

Scores are summed without weights (paper, section 3.1), so this serves the paper's experiments; large images go through
the lattice and the accumulator. Letters: C bands, H W pixels, K classes, D fields of view, Y X cells, N locations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate.errors import CoverageHole
from model.extract import extract_patches
from model.geometry import Geometry
from model.inputs import log_scales, with_scale
from model.mapping import map_exact, map_parity
from model.mixing import mix
from model.policy import TAU_END, choose
from model.resample import bilinear, low_resolution
from raster.geometry import Region, Size

__all__ = ["Aggregate", "Weigh", "infer", "policy_weights"]

Weigh = Callable[[Tensor], Tensor]
"""Log-probabilities (N, D) of all locations, row-major, to the weights (N, D) of their patches."""


@dataclass(frozen=True)
class Aggregate:
    """What the locations of an image add up to."""

    scores: Tensor
    """(K, H, W) float32: sums of probabilities or, with `max_score`, the scores of the surest window."""
    votes: Tensor
    """(H, W) int32: windows over each pixel."""
    distribution: Tensor
    """(D, Y, X): F_theta's probabilities at its own step."""

    @property
    def mask(self) -> Tensor:
        """(H, W) int64: the best class, the lowest on a tie, 0 where no window lies."""
        return self.scores.argmax(dim=0)


def policy_weights(
    policy: str, fovs: int, mapping: Literal["implicit", "explicit"] = "implicit", *, tau: float = TAU_END
) -> list[Weigh]:
    """The weights of a policy by name (design 4.1): one rule or, for `ensemble`, one for each of its members.

    `tau` is the temperature of `gumbel`. Raises OptionInvalid for a policy that the bank or the mapping cannot follow.
    """

    def weigh(name: str) -> Weigh:
        def weights(log_f_ND: Tensor) -> Tensor:
            choice = choose(log_f_ND.exp().T.numpy(force=True), name, mapping, tau=tau)
            by_cell = np.eye(fovs, dtype=np.float32)[choice.index] if choice.weights is None else choice.weights
            return torch.from_numpy(by_cell).to(log_f_ND)

        return weights

    choose(np.ones((fovs, 1), np.float32), policy, mapping)
    return [weigh(f"fixed:{k + 1}") for k in range(fovs)] if policy == "ensemble" else [weigh(policy)]


@torch.inference_mode()
def infer(
    image_CHW: Tensor,
    foveation: nn.Module,
    network: nn.Module,
    geometry: Geometry,
    weigh: Sequence[Weigh],
    *,
    coarse_step: int = 0,
    max_score: bool = False,
    explicit: bool = False,
    interpolate_logs: bool = False,
    scale_channel: bool = False,
    batch: int = 16,
) -> Aggregate:
    """Visit every location of the grid, row-major, and add up the scores.

    `image_CHW` is normalised; `foveation` gives probabilities, `network` logits at any stride, both in evaluation mode.
    `geometry.step` is F_theta's; `coarse_step` lets the locations step further. Several `weigh` are averaged.
    `max_score` keeps, per pixel, the scores of the window with the largest single score. `interpolate_logs` resizes
    log-probabilities to the coarser grid, as the authors' code does for Gumbel. `scale_channel` gives the network one
    more channel, log2 of field of view over patch side, mixed like the patches. `center` refuses a grid that leaves
    holes (OptionInvalid); `parity` leaves uncovered pixels without votes.
    """
    image_1CHW = image_CHW[None]
    size = Size(image_CHW.shape[-1], image_CHW.shape[-2])
    low = low_resolution(image_1CHW, geometry.step, geometry.aspect, antialias=geometry.kind == "center")
    distribution = foveation(low)
    grid = geometry.stepping(coarse_step) if coarse_step else geometry
    log_f_ND = _at_locations(distribution, grid.grid(size), interpolate_logs)
    canvas = _Canvas(size, max_score)
    for rule in weigh:
        weights_ND = rule(log_f_ND)
        for numbers, locations in _batches(grid.grid(size), batch):
            scores = _scores(image_1CHW, network, grid, locations, weights_ND[numbers], scale_channel)
            for location, weights_D, seen_KPQ in zip(locations, weights_ND[numbers], scores, strict=True):
                index = int(weights_D.argmax())
                read_KPQ = _read_back(seen_KPQ, grid, size, location, index) if explicit else seen_KPQ
                canvas.add(read_KPQ, grid.score_window(size, location))
    if geometry.kind == "center" and not bool(canvas.votes.all()):
        raise CoverageHole("some pixels lie in no window", hint="report this: the grid should have covered the image")
    return Aggregate(canvas.scores if max_score else canvas.scores / len(weigh), canvas.votes, distribution[0])


def _at_locations(distribution_1DYX: Tensor, grid: tuple[int, int], interpolate_logs: bool) -> Tensor:
    """Log-probabilities (N, D) of the grid's locations, row-major."""
    resized = bilinear(distribution_1DYX.log() if interpolate_logs else distribution_1DYX, *grid)
    log_f_1DYX = resized if interpolate_logs else resized.log()
    return log_f_1DYX[0].flatten(1).T


class _Canvas:
    """The sums so far; changes with every `add`."""

    def __init__(self, size: Size, max_score: bool) -> None:
        self.size = size
        self.max_score = max_score
        self.scores = torch.zeros((1, *size.shape))
        self.votes = torch.zeros(size.shape, dtype=torch.int32)

    def add(self, scores_KPQ: Tensor, window: Region) -> None:
        if len(self.scores) != len(scores_KPQ):
            # Only the first output tells how many classes there are.
            self.scores = scores_KPQ.new_zeros((len(scores_KPQ), *self.size.shape))
        cut = window.intersection(Region.of(self.size))
        rows, columns = cut.slices()
        own_rows, own_columns = cut.slices(window.x, window.y)
        new = scores_KPQ[:, own_rows, own_columns]
        old = self.scores[:, rows, columns]
        if self.max_score:
            surer = new.amax(dim=0) > old.amax(dim=0)
            self.scores[:, rows, columns] = torch.where(surer, new, old)
        else:
            old += new
        self.votes[rows, columns] += 1


def _scores(
    image_1CHW: Tensor,
    network: nn.Module,
    grid: Geometry,
    locations: list[tuple[int, int]],
    weights_ND: Tensor,
    scale_channel: bool,
) -> Tensor:
    """Probabilities (N, K, P, P * aspect) of the mixed patches."""
    patches_NDCHW = torch.stack([extract_patches(image_1CHW, grid, location)[:, 0] for location in locations])
    mixed_NCHW = mix(patches_NDCHW, weights_ND)
    log_scale_N = weights_ND @ log_scales(grid.bank, grid.bank[0], weights_ND.device).to(weights_ND)
    logits = network(with_scale(mixed_NCHW, log_scale_N, scale_channel))
    return functional.softmax(bilinear(logits, *grid.patch_shape), dim=1)


def _read_back(scores_KPQ: Tensor, grid: Geometry, size: Size, location: tuple[int, int], index: int) -> Tensor:
    if grid.kind == "parity":
        return map_parity(scores_KPQ[None], index, grid.bank)[0]
    windows = grid.windows(size, location)
    return map_exact(scores_KPQ[None], windows[index], windows[0])[0]


def _batches(grid: tuple[int, int], batch: int) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """Numbers and (row, column) of the grid's locations, row-major."""
    rows, columns = grid
    for start in range(0, rows * columns, batch):
        numbers = list(range(start, min(start + batch, rows * columns)))
        yield numbers, [divmod(number, columns) for number in numbers]

"""What each field of view would cost at places that the network never learned from: what staged F_theta learns from.

Letters: N locations, C bands, D fields of view, K classes, P patch side, S side of a glimpse.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from foveate.errors import OptionInvalid
from foveate.schema import BundleCard
from model.datasets.augmentation import Change, draw_change
from model.datasets.classes import IGNORE
from model.inputs import Normalise, log_scales, with_scale
from model.mapping import map_concentric
from model.training.begin import Survey
from model.training.checkpoints import Checkpoints
from model.training.config import Staged, TrainConfig
from model.training.devices import Place
from model.training.images import OpenImages
from model.training.locations import Locations
from model.training.losses import window_losses
from model.training.stream import stream
from raster.geometry import Region, Size

__all__ = ["REACH", "HeldOut", "Measured", "check_places", "measure"]

log = logging.getLogger(__name__)

REACH = 7
"""Thumbnail pixels around a location that are shown to F_theta in training; more than it sees."""
_BATCH = 8
_MOST = 4096
"""Locations of a view at most; the held-out part of a slide has far more."""
_LEAST_LABELLED = 0.25


@dataclass(frozen=True)
class Measured:
    """Locations and what every field of view would cost there.

    `glimpses` (N, C, S, S) float32 normalised thumbnail around each location; `inside` (N, 1, S, S) bool, what of it
    lies in the image; `losses` (N, D), cross-entropy; `confusions` (N, D, K, K), pixels of the window by label and
    prediction; `labelled` (N,), the share of the window that is labelled; `images` (N,) int64, which one each lies in.
    """

    glimpses: Tensor
    inside: Tensor
    losses: Tensor
    confusions: Tensor
    labelled: Tensor
    images: Tensor

    @classmethod
    def joined(cls, parts: Sequence["Measured"]) -> "Measured":
        return cls(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})

    def at(self, chosen_N: Tensor) -> "Measured":
        """Those locations where `chosen_N` (N,) bool is true."""
        return Measured(**{name: value[chosen_N] for name, value in vars(self).items()})


class Places(NamedTuple):
    """Some locations of one view, as read.

    `glimpses` (N, S, S, C), `inside` (N, 1, S, S) bool, `patches` (N, D, P, P, C), `labels` (N, P, P); `images` (N,)
    int64, the image that they lie in.
    """

    glimpses: Tensor
    inside: Tensor
    patches: Tensor
    labels: Tensor
    images: Tensor


class HeldOut(Dataset[Places]):
    """Locations in what is held out of each image, by (view, batch): a view is an image turned, in another light."""

    def __init__(self, found: Survey, config: TrainConfig) -> None:
        assert isinstance(config.training, Staged) and config.training.foveation is not None
        assert config.bundle.foveation is not None  # both checked by the recipe
        self._config, self._found, self._card = config, found, config.bundle
        self._every, variants = config.training.foveation.every, config.training.foveation.variants
        self._step = config.bundle.foveation.downsample
        self._images = OpenImages(found.pairs, config)
        kept = [k for k, held in enumerate(found.held) if not held.empty]
        self._views = [(k, variant) for variant in range(variants) for k in kept]

    @cached_property
    def keys(self) -> list[tuple[int, int]]:
        return [
            (view, batch) for view in range(len(self._views)) for batch in range(-(-len(self._cells(view)) // _BATCH))
        ]

    def __getitem__(self, key: tuple[int, int]) -> Places:
        view, batch = key
        index, _ = self._views[view]
        image, card = self._images[index], self._card
        grid = Locations("lattice", self._found.sizes[index], tuple(card.fovs), self._step)
        change, middle = self._light(view)
        side, held = Size(card.patch_size, card.patch_size), self._found.held[index]
        glimpses, inside, patches, labels = [], [], [], []
        for row, column in self._cells(view)[batch * _BATCH : (batch + 1) * _BATCH]:
            windows = grid.windows((row, column))
            truth = image.labels(windows[0], side)
            truth[~_inside(held, windows[0], side)] = IGNORE
            if (truth != IGNORE).mean() < _LEAST_LABELLED:
                continue
            seen = Region(column - REACH, row - REACH, 2 * REACH + 1, 2 * REACH + 1)
            glimpses.append(self._changed(grid.thumbnail(image, seen), change, middle))
            inside.append(change.turned(_cells_inside(grid.shape, seen))[None])
            patches.append([self._changed(patch, change, middle) for patch in grid.patches(image, windows)])
            labels.append(change.turned(truth))
        S, P, C = 2 * REACH + 1, card.patch_size, card.network.in_channels
        shapes = ((S, S, C), (1, S, S), (len(card.fovs), P, P, C), (P, P))
        found = zip((glimpses, inside, patches, labels), shapes, strict=True)
        parts = (torch.from_numpy(np.array(part).reshape(-1, *shape)) for part, shape in found)
        return Places._make((*parts, torch.full((len(labels),), index)))

    def _cells(self, view: int) -> list[tuple[int, int]]:
        """(row, column) of every `every`-th cell whose window may lie in the held-out part, from a random start."""
        held, step = self._found.held[self._views[view][0]], self._step
        random = self._random(view)
        y0, x0 = (int(k) for k in random.integers(self._every, size=2))
        rows = range(held.y // step + y0, -(-held.y1 // step), self._every)
        columns = range(held.x // step + x0, -(-held.x1 // step), self._every)
        cells = [(row, column) for row in rows for column in columns]
        if len(cells) > _MOST:
            cells = [cells[k] for k in sorted(random.choice(len(cells), _MOST, replace=False))]
        return cells

    def _light(self, view: int) -> tuple[Change, NDArray[np.float64]]:
        """How a view is turned and coloured, and the colour that contrast changes about."""
        index, variant = self._views[view]
        drawn = draw_change(self._config.augmentation, self._card.network.in_channels, self._random(view))
        change = Change(
            variant % 4, variant >= 4, drawn.gamma, drawn.contrast, drawn.gains, drawn.saturation, drawn.hue
        )
        small = self._images[index].pixels(self._found.held[index], Size(32, 32))
        middle = ((small / self._card.input.value_scale).clip(0, 1) ** change.gamma).mean(axis=(0, 1))
        return change, middle

    def _random(self, view: int) -> np.random.Generator:
        return np.random.default_rng([self._config.seed, 1, view])

    def _changed(self, pixels: NDArray[Any], change: Change, middle: NDArray[np.float64]) -> NDArray[Any]:
        return change.recoloured(change.turned(pixels), self._card.input.value_scale, middle)


def _cells_inside(shape: tuple[int, int], seen: Region) -> NDArray[np.bool_]:
    """(height, width): which of the cells `seen` are cells of a grid of `shape`."""
    rows, columns = seen.y + np.arange(seen.height), seen.x + np.arange(seen.width)
    return ((rows >= 0) & (rows < shape[0]))[:, None] & ((columns >= 0) & (columns < shape[1]))


def _inside(held: Region, window: Region, size: Size) -> NDArray[np.bool_]:
    """(height, width): which pixels of the window at `size` have their centre in `held`."""
    y = window.y + (np.arange(size.height) + 0.5) * window.height / size.height
    x = window.x + (np.arange(size.width) + 0.5) * window.width / size.width
    return ((y >= held.y) & (y < held.y1))[:, None] & ((x >= held.x) & (x < held.x1))


def check_places(count: int) -> None:
    """OptionInvalid where there is no place for F_theta to learn from."""
    if not count:
        raise OptionInvalid(
            "nothing is held out of the training images, so F_theta has nothing to learn from",
            hint="Set data.holdout (a smaller `part` holds out more), or leave F_theta out: foveation null in bundle "
            "and training.",
        )


def measure(network: nn.Module, found: Survey, config: TrainConfig, weights_K: Tensor, place: Place) -> Measured:
    """The losses of every field of view where the network, in evaluation mode, never learned.

    Goes on from the run's checkpoint of them where there is one.
    """
    held_out = HeldOut(found, config)
    checkpoints = Checkpoints(config.run / "measured.pt", config.checkpoint_minutes)
    state = checkpoints.load()
    done = [Measured(**part) for part in state["parts"]] if state else []
    keys = [[key] for key in held_out.keys[len(done) :]]
    normalise = Normalise(config.bundle, place.device)
    for places in stream(held_out, keys, _only, loaders=config.loaders):
        done.append(_measured(network, places, config.bundle, weights_K.to(place.device), normalise, place))
        if checkpoints.due or len(done) == len(held_out.keys):
            checkpoints.save({"parts": [vars(part) for part in done]})
            log.info("losses for F_theta: %d of %d", len(done), len(held_out.keys))
    return Measured.joined(done)


def _only(places: Sequence[Places]) -> Places:
    return places[0]


@torch.inference_mode()
def _measured(
    network: nn.Module, places: Places, card: BundleCard, weights_K: Tensor, normalise: Normalise, place: Place
) -> Measured:
    """The loss on the smallest window when each field of view is seen; mapped, and as precise, as at inference."""
    side, device, K = card.patch_size, place.device, len(card.classes)
    labels = places.labels.long().to(device)
    losses, confusions, labelled = [], [], torch.zeros(0)
    log_scales_D = log_scales(card.fovs, side, device)
    for d, fov in enumerate(card.fovs):
        patches = normalise(places.patches[:, d].to(device))
        if not len(patches):
            losses.append(torch.zeros(0))
            confusions.append(torch.zeros(0, K, K, dtype=torch.int64))
            continue
        with place.as_in_inference():
            logits = network(with_scale(patches, log_scales_D[d].expand(len(patches)), card.network.scale_channel))
        scores = logits.float().softmax(dim=1)
        if fov != side:
            scores = map_concentric(scores, fov, side)
        found, share = window_losses(scores, labels, weights_K)
        losses.append(found.cpu())
        confusions.append(_confusions(scores.argmax(dim=1), labels, K).cpu())
        labelled = share.cpu()
    glimpses = normalise(places.glimpses.to(device)).cpu()
    costs = (torch.stack(losses, dim=1), torch.stack(confusions, dim=1), labelled)
    return Measured(glimpses, places.inside.bool(), *costs, places.images)


def _confusions(predicted_NPP: Tensor, labels_NPP: Tensor, K: int) -> Tensor:
    """(N, K, K) int64: pixels by label, then prediction, the ignored ones left out."""
    pairs = torch.where(labels_NPP == IGNORE, K * K, labels_NPP * K + predicted_NPP).flatten(1)
    counts = torch.zeros(len(pairs), K * K + 1, dtype=torch.int64, device=pairs.device)
    return counts.scatter_add_(1, pairs, torch.ones_like(pairs))[:, :-1].reshape(-1, K, K)

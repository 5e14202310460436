"""Training F_theta: measure what each field of view would cost at each place, then minimise the cost to expect.

The network is frozen, so the loss L_d of every field of view d can be measured once, and the expected loss
sum_d f_d L_d has an exact gradient.
Letters: N locations, C bands, K classes, D fields of view, P patch side, S side of a glimpse.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW

from foveate.schema import BundleCard
from model.datasets.patches import (
    IGNORE,
    Labelled,
    labels_at,
    mean_colour,
    normalised,
    patch_at,
    recoloured,
    thumbnail,
    turned,
)
from model.foveation import FoveationModule
from model.mapping import map_exact
from model.training.config import TrainConfig
from model.training.fit import Checkpoints, with_scale
from model.training.losses import expected_loss, window_losses
from raster.geometry import Region

__all__ = ["Measured", "fit_foveation", "foveation_summary", "measure"]

log = logging.getLogger(__name__)

_REACH = 7
"""Thumbnail pixels around a location that training shows to F_theta; its three 3x3 convolutions see 3."""
_BATCH = 8
_LEAST_LABELLED = 0.25


@dataclass(frozen=True)
class Measured:
    """Locations and what every field of view would cost there.

    `glimpses` (N, C, S, S) float32 normalised thumbnail around each location; `losses` (N, D); `labelled` (N,), the
    share of the window that is labelled.
    """

    glimpses: Tensor
    losses: Tensor
    labelled: Tensor

    @classmethod
    def joined(cls, parts: list["Measured"]) -> "Measured":
        return cls(
            torch.cat([part.glimpses for part in parts]),
            torch.cat([part.losses for part in parts]),
            torch.cat([part.labelled for part in parts]),
        )


def measure(
    network: nn.Module, images: list[Labelled], config: TrainConfig, weights_K: Tensor, checkpoints: Checkpoints
) -> Measured:
    """The losses on what the network never learned from (`Labelled.held`), turned, mirrored and under other light.

    Goes on from the checkpoint where there is one.
    """
    views = [
        (image, variant) for variant in range(config.foveation.variants) for image in images if not image.held.empty
    ]
    state = checkpoints.load()
    done = [Measured(**part) for part in state["parts"]] if state else []
    for index, (image, variant) in enumerate(views):
        if index < len(done):
            continue
        random = np.random.default_rng([config.seed, 1, index])
        done.append(_measured_view(network, _view(image, variant, config, random), config, weights_K, random))
        if checkpoints.due or index + 1 == len(views):
            checkpoints.save({"parts": [vars(part) for part in done]})
        log.info("losses: view %d of %d, %d locations", index + 1, len(views), sum(len(p.losses) for p in done))
    return Measured.joined(done)


def _view(
    image: Labelled, variant: int, config: TrainConfig, random: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels and labels around the held part, turned by `variant`; only the held part keeps its labels."""
    card = config.bundle
    assert card.foveation is not None  # checked by the recipe
    margin = (card.fovs[-1] + card.patch_size) // 2 + 4 * card.foveation.downsample
    near = image.held.grown(margin).intersection(Region.of(image.size))
    labels = np.full(near.size.shape, IGNORE, np.uint8)
    labels[image.held.slices(near.x, near.y)] = image.labels[image.held.slices()]
    pixels = recoloured(image.pixels[near.slices()], config.augmentation, random)
    turns, mirrored = variant % 4, variant >= 4
    return turned(pixels, turns, mirrored), turned(labels, turns, mirrored)


def _measured_view(
    network: nn.Module,
    view: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    config: TrainConfig,
    weights_K: Tensor,
    random: np.random.Generator,
) -> Measured:
    pixels, labels = view
    card = config.bundle
    assert card.foveation is not None  # checked by the recipe
    step = card.foveation.downsample
    small = thumbnail(pixels, step, mean_colour(card))
    cells = list(_cells(small.shape, config.foveation.every, random))
    centres = [(x * step + step // 2, y * step + step // 2) for x, y in cells]
    truth = [labels_at(labels, _around(centre, card.patch_size), card.patch_size) for centre in centres]
    kept = [k for k, label in enumerate(truth) if (label != IGNORE).mean() >= _LEAST_LABELLED]
    whole = normalised(small[None], card)
    around = nn.functional.pad(whole, [_REACH] * 4)
    glimpses = [around[0, :, y : y + 2 * _REACH + 1, x : x + 2 * _REACH + 1] for x, y in (cells[k] for k in kept)]
    losses = [
        _losses(network, pixels, [centres[k] for k in kept], [truth[k] for k in kept], fov, card, weights_K)
        for fov in card.fovs
    ]
    side = 2 * _REACH + 1
    return Measured(
        torch.stack(glimpses) if glimpses else torch.zeros(0, whole.shape[1], side, side),
        torch.stack(losses, dim=1),
        torch.tensor([float((truth[k] != IGNORE).mean()) for k in kept]),
    )


def _cells(shape: tuple[int, ...], every: int, random: np.random.Generator) -> Iterator[tuple[int, int]]:
    """(x, y) of every `every`-th thumbnail pixel from a random start."""
    x0, y0 = (int(k) for k in random.integers(every, size=2))
    for y in range(y0, shape[0], every):
        yield from ((x, y) for x in range(x0, shape[1], every))


def _around(centre: tuple[int, int], side: int) -> Region:
    return Region(centre[0] - side // 2, centre[1] - side // 2, side, side)


@torch.inference_mode()
def _losses(
    network: nn.Module,
    pixels: NDArray[np.uint8],
    centres: list[tuple[int, int]],
    truth: list[NDArray[np.uint8]],
    fov: int,
    card: BundleCard,
    weights_K: Tensor,
) -> Tensor:
    """(N,): the loss on the smallest window at each centre when the network sees `fov`; exactly as in inference."""
    side, fill = card.patch_size, mean_colour(card)
    found = []
    for start in range(0, len(centres), _BATCH):
        batch = slice(start, start + _BATCH)
        patches = np.stack([patch_at(pixels, _around(c, fov), side, fill) for c in centres[batch]])
        scale = torch.full((len(patches),), fov / side)
        scores = network(with_scale(normalised(patches, card), scale, card.network.scale_channel)).softmax(dim=1)
        if fov != side:
            scores = map_exact(scores, _around((0, 0), fov), _around((0, 0), side))
        labels = torch.from_numpy(np.stack(truth[batch]).astype(np.int64))
        found.append(window_losses(scores, labels, weights_K)[0])
    return torch.cat(found) if found else torch.zeros(0)


def fit_foveation(measured: Measured, config: TrainConfig) -> FoveationModule:
    """F_theta, from scratch, minimising the mean over locations of the expected loss; evaluation mode."""
    card, schedule = config.bundle, config.foveation
    assert card.foveation is not None  # checked by the recipe
    torch.manual_seed(config.seed + 1)
    module = FoveationModule.from_card(card.foveation, card.network.in_channels, len(card.fovs))
    optimiser = AdamW(module.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, schedule.steps)
    for step in range(schedule.steps):
        chosen = torch.randint(len(measured.losses), (min(256, len(measured.losses)),))
        distribution = module(measured.glimpses[chosen])[:, :, _REACH, _REACH]
        loss = expected_loss(distribution, measured.losses[chosen], measured.labelled[chosen])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        falling.step()
        if (step + 1) % max(1, schedule.steps // 5) == 0:
            log.info("F_theta: step %d of %d, expected loss %.4f", step + 1, schedule.steps, loss.item())
    return module.eval()


@torch.inference_mode()
def foveation_summary(module: FoveationModule, measured: Measured) -> dict[str, list[float] | float]:
    """On the measured places: mean loss of each fixed field of view, of F_theta's choice and of the best choice."""
    weight = measured.labelled / measured.labelled.sum()
    chosen = module(measured.glimpses)[:, :, _REACH, _REACH].argmax(dim=1)
    picked = measured.losses.gather(1, chosen[:, None])[:, 0]
    counts = torch.bincount(chosen, minlength=measured.losses.shape[1])
    return {
        "fixed": [round(float(v), 4) for v in weight @ measured.losses],
        "mode": round(float(weight @ picked), 4),
        "oracle": round(float(weight @ measured.losses.min(dim=1).values), 4),
        "chosen_share": [round(float(v), 4) for v in counts / counts.sum()],
    }

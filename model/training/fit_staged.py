"""The two loops of training: the segmentation network on patches of every field of view, then F_theta on its losses.

Letters: N patches, C bands, K classes, D fields of view, P patch side.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from model.datasets.patches import PatchSampler
from model.training.config import NetworkSchedule
from model.training.losses import segmentation_loss

__all__ = ["Checkpoints", "fit_network", "with_scale"]

log = logging.getLogger(__name__)


@dataclass
class Checkpoints:
    """One file that the same command goes on from; replaced at once, never half written. Changes over time."""

    path: Path
    minutes: float
    _saved: float = 0.0

    def load(self) -> dict[str, Any] | None:
        """What was saved last; None: nothing yet."""
        self._saved = time.monotonic()
        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        return state

    @property
    def due(self) -> bool:
        return time.monotonic() - self._saved >= 60 * self.minutes

    def save(self, state: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".partial")
        torch.save(state, scratch)
        scratch.replace(self.path)
        self._saved = time.monotonic()


def with_scale(patches_NCPP: Tensor, scales_N: Tensor, scale_channel: bool) -> Tensor:
    """The patches as the network takes them: one more channel with log2(f / P) where the card asks for it."""
    if scale_channel:
        plane = scales_N.log2()[:, None, None, None].expand(-1, 1, *patches_NCPP.shape[2:])
        patches_NCPP = torch.cat([patches_NCPP, plane], dim=1)
    return patches_NCPP.contiguous(memory_format=torch.channels_last)


def fit_network(
    network: nn.Module,
    sampler: PatchSampler,
    weights_K: Tensor,
    checkpoints: Checkpoints,
    encoder_prefix: str = "encoder.",
) -> None:
    """Train `network` in place on `sampler`'s batches; goes on from the checkpoint where there is one.

    AdamW; the encoder, whose weights start from ImageNet, learns at its own rate; both rates fall as
    (1 - step / steps)^poly_power. A resumed run takes the very steps that an unbroken one would have taken.
    """
    schedule = sampler.schedule
    optimiser = _optimiser(network, schedule, encoder_prefix)
    falling = LambdaLR(
        optimiser, lambda step: (1 - min(step, schedule.steps - 1) / schedule.steps) ** schedule.poly_power
    )
    start = 0
    if (state := checkpoints.load()) is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        falling.load_state_dict(state["falling"])
        start = state["step"]
        log.info("network: goes on at step %d of %d", start, schedule.steps)

    def snapshot(step: int) -> dict[str, Any]:
        return {
            "step": step,
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "falling": falling.state_dict(),
        }

    network.train()
    progress = _Progress("network", start, schedule.steps)
    recent = None
    for step in range(start, schedule.steps):
        torch.manual_seed(sampler.seed * 1_000_003 + step)
        patches, labels, scales = sampler.batch(step)
        logits = network(with_scale(patches, scales, sampler.card.network.scale_channel))
        loss = segmentation_loss(logits, labels, weights_K)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        falling.step()
        recent = loss.item() if recent is None else 0.95 * recent + 0.05 * loss.item()
        progress.tell(step + 1, f"loss {recent:.4f}")
        if checkpoints.due:
            checkpoints.save(snapshot(step + 1))
    checkpoints.save(snapshot(schedule.steps))
    network.eval()


def _optimiser(network: nn.Module, schedule: NetworkSchedule, encoder_prefix: str) -> AdamW:
    named = list(network.named_parameters())
    encoder = [p for name, p in named if name.startswith(encoder_prefix)]
    decoder = [p for name, p in named if not name.startswith(encoder_prefix)]
    groups = [
        {"params": encoder, "lr": schedule.encoder_learning_rate},
        {"params": decoder, "lr": schedule.decoder_learning_rate},
    ]
    return AdamW([group for group in groups if group["params"]], weight_decay=schedule.weight_decay)


class _Progress:
    """A log line now and then: how far, how well, and the time that is left."""

    _EVERY_SECONDS = 20.0

    def __init__(self, what: str, start: int, end: int) -> None:
        self._what, self._start, self._end = what, start, end
        self._begun = self._told = time.monotonic()

    def tell(self, done: int, how: str) -> None:
        now = time.monotonic()
        if now - self._told < self._EVERY_SECONDS and done < self._end:
            return
        self._told = now
        left = int((now - self._begun) / (done - self._start) * (self._end - done))
        log.info("%s: step %d of %d, %s, %d min %02d s left", self._what, done, self._end, how, left // 60, left % 60)

"""Staged training: the network on every field of view by itself, and what its updates do."""

from typing import Any

import torch
from torch import Tensor, nn

from foveate.schema import BundleCard
from model.datasets.classes import IGNORE
from model.training.config import NetworkSchedule
from model.training.devices import Place, wrapped
from model.training.losses import at_stride, dice_loss, patch_losses
from model.training.normalise import Normalise
from model.training.optimise import WeightMean, falling, make_optimiser, set_rates
from model.training.patches import PatchSample

__all__ = ["StagedLearner", "with_scale"]


def with_scale(patches_NCPP: Tensor, scales_N: Tensor, scale_channel: bool) -> Tensor:
    """The patches as the network takes them: one more channel with log2(f / P) where the card asks for it."""
    if scale_channel:
        plane = scales_N.log2()[:, None, None, None].expand(-1, 1, *patches_NCPP.shape[2:])
        patches_NCPP = torch.cat([patches_NCPP, plane], dim=1)
    return patches_NCPP.contiguous(memory_format=torch.channels_last)


class StagedLearner:
    """The network, "network" in `nets`, its optimiser, and one update of it. `stride` as in `JointLearner`."""

    def __init__(
        self,
        nets: nn.ModuleDict,
        card: BundleCard,
        schedule: NetworkSchedule,
        weights_K: Tensor,
        place: Place,
        stride: int = 1,
    ) -> None:
        self.nets, self._card, self._schedule, self._place, self._stride = nets, card, schedule, place, stride
        self.optimiser = make_optimiser(dict(nets.items()), schedule.optimiser)
        self._network = wrapped(nets["network"], place)
        self._weights_K = weights_K.to(place.device)
        self._normalise = Normalise(card, place.device)
        self._scaler = torch.amp.GradScaler(place.device.type, enabled=place.half == torch.float16)
        self._mean = None if schedule.average is None else WeightMean(nets, schedule.average)

    def update(self, sample: PatchSample, step: int) -> dict[str, float]:
        """Update number `step` (from 0) on the mean loss over the patches."""
        self.nets.train()
        schedule, device = self._schedule, self._place.device
        warm = min(1.0, (step + 1) / (schedule.optimiser.warm_up + 1))
        set_rates(self.optimiser, warm * falling(step, schedule.steps, schedule.optimiser.poly_power))
        patches = self._normalise(sample.pixels.to(device))
        labels = at_stride(sample.labels, self._stride).long().to(device)
        labelled = self._place.summed((labels != IGNORE).sum()).clamp_min(1) / self._place.world
        with self._place.autocast():
            logits = self._network(with_scale(patches, sample.scale.to(device), self._card.network.scale_channel))
        sums_N, _ = patch_losses(logits.float().log_softmax(dim=1), labels, self._weights_K)
        loss = sums_N.sum() / labelled
        if schedule.loss.dice:
            loss = loss + schedule.loss.dice * dice_loss(logits.float(), labels)
        self.optimiser.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.step(self.optimiser)
        self._scaler.update()
        if self._mean is not None:
            self._mean.update()
        report = {"loss": float(self._place.summed(loss.detach())) / self._place.world}
        return report | {f"rate_{group['part']}": group["lr"] for group in self.optimiser.param_groups}

    def state_dict(self) -> dict[str, Any]:
        return {
            "nets": self.nets.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "mean": None if self._mean is None else self._mean.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nets.load_state_dict(state["nets"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self._mean is not None:
            self._mean.load_state_dict(state["mean"])
        self._scaler.load_state_dict(state["scaler"])

    def finish(self) -> None:
        """Leave in `nets` what is kept in the end, in evaluation mode."""
        if self._mean is not None:
            self.nets.load_state_dict(self._mean.state_dict())
        self.nets.eval()

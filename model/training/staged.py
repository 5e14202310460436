"""Staged training: the network on every field of view by itself, and what its updates do."""

import torch
from torch import Tensor, nn

from foveate.schema import BundleCard
from model.datasets.classes import IGNORE
from model.inputs import Normalise, with_scale
from model.training.config import NetworkSchedule
from model.training.descent import Descent
from model.training.devices import Place, wrapped
from model.training.losses import at_stride, dice_loss, patch_losses
from model.training.optimise import falling, set_rates
from model.training.patches import PatchSample

__all__ = ["StagedLearner"]


class StagedLearner(Descent):
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
        super().__init__(nets, schedule.optimiser, schedule.average, place)
        self._card, self._schedule, self._place, self._stride = card, schedule, place, stride
        self._network = wrapped(nets["network"], place)
        self._weights_K = weights_K.to(place.device)
        self._normalise = Normalise(card, place.device)

    def update(self, sample: PatchSample, step: int) -> dict[str, float]:
        """Update number `step` (from 0) on the mean loss over the patches."""
        self.nets.train()
        schedule, device = self._schedule, self._place.device
        warm = min(1.0, (step + 1) / (schedule.optimiser.warm_up + 1))
        set_rates(self.optimiser, warm * falling(step, schedule.steps, schedule.optimiser.poly_power))
        patches = self._normalise(sample.pixels.to(device))
        labels = at_stride(sample.labels, self._stride).long().to(device)
        labelled = self._place.summed((labels != IGNORE).sum()).clamp_min(1) / self._place.world
        patches = with_scale(patches, sample.scale.log2().to(device), self._card.network.scale_channel)
        with self._place.autocast():
            logits = self._network(patches)
        sums_N, _ = patch_losses(logits.float().log_softmax(dim=1), labels, self._weights_K)
        loss = sums_N.sum() / labelled
        if schedule.loss.dice:
            loss = loss + schedule.loss.dice * dice_loss(logits.float(), labels)
        self.optimiser.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss))
        self._step()
        self._average()
        return {"loss": float(self._place.summed(loss.detach())) / self._place.world, **self._rates()}

"""What both methods' updates work on: the nets, their optimiser, the loss's scale, and the weights' running mean."""

from typing import Any

import torch
from torch import nn

from model.training.config import Optimiser
from model.training.devices import Place
from model.training.optimise import WeightMean, make_optimiser

__all__ = ["Descent"]


class Descent:
    """Changes with every update; `average` is the decay of the mean of all weights that is kept in the end."""

    def __init__(self, nets: nn.ModuleDict, optimiser: Optimiser, average: float | None, place: Place) -> None:
        self.nets = nets
        self.optimiser = make_optimiser(dict(nets.items()), optimiser)
        self._scaler = torch.amp.GradScaler(place.device.type, enabled=place.half == torch.float16)
        self._mean = None if average is None else WeightMean(nets, average)

    def _step(self) -> None:
        """The optimiser's, on the gradients that have gathered."""
        self._scaler.step(self.optimiser)
        self._scaler.update()

    def _average(self) -> None:
        """Let the running mean see the weights that an update has left."""
        if self._mean is not None:
            self._mean.update()

    def _rates(self) -> dict[str, float]:
        """The learning rates in force, for the journal."""
        return {f"rate_{group['part']}": group["lr"] for group in self.optimiser.param_groups}

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
        if state["scaler"]:  # empty where the run began without half precision, which may change with the machine
            self._scaler.load_state_dict(state["scaler"])

    def finish(self) -> None:
        """Leave in `nets` what is kept in the end, in evaluation mode."""
        if self._mean is not None:
            self.nets.load_state_dict(self._mean.state_dict())
        self.nets.eval()

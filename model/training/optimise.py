"""The optimiser, its rates, the temperature (foveation-method.md, sections 5 and 8.3), and the mean of the weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.training.config import Optimiser

__all__ = ["WeightMean", "falling", "make_optimiser", "set_rates", "temperature"]

_MOMENTUM = 0.9
_COLDEST = 0.1


def falling(t: float, T: float, power: float) -> float:
    """(1 - t / T)^power, the factor of the learning rates at iteration t of T; t may be negative (section 8.2)."""
    return float((1 - t / T) ** power)


def temperature(t: float, T: float, rate: float) -> float:
    """tau(t) = max(0.1, exp(-rate t / T))."""
    return max(_COLDEST, math.exp(-rate * t / T))


def make_optimiser(nets: Mapping[str, nn.Module], choice: Optimiser) -> torch.optim.Optimizer:
    """Over all parameters of `nets` ("network" and perhaps "foveation"); every group knows its `base_lr`.

    Parameters of the network's submodule `encoder` learn at the encoder's rate. `weight_decay` acts on the weights of
    convolutions alone, or on everything, as `choice.decay_on` says.
    """
    rates = {
        "decoder": choice.learning_rate,
        "encoder": choice.encoder_learning_rate or choice.learning_rate,
        "foveation": choice.foveation_learning_rate or choice.learning_rate,
    }
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, net in nets.items():
        kernels = {
            id(layer.weight)
            for layer in net.modules()
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d)
        }
        for path, parameter in net.named_parameters():
            part = name if name == "foveation" else "encoder" if path.startswith("encoder.") else "decoder"
            decays = choice.decay_on == "all" or id(parameter) in kernels
            members.setdefault((part, decays), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters,
            "part": part,
            "base_lr": rates[part],
            "lr": rates[part],
            "weight_decay": choice.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in members.items()
    ]
    if choice.name == "sgd":
        return torch.optim.SGD(groups, momentum=_MOMENTUM)
    return (torch.optim.AdamW if choice.name == "adamw" else torch.optim.Adam)(groups)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate becomes `factor` times its base."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


class WeightMean:
    """An exponential mean of all weights and running statistics; it begins with the first weights that it is shown."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._module = module
        self._mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        now = self._module.state_dict()
        if not self._mean:
            self._mean = {name: tensor.clone() for name, tensor in now.items()}
            return
        for name, tensor in now.items():
            if tensor.is_floating_point():
                self._mean[name].lerp_(tensor, 1 - self._decay)
            else:
                self._mean[name].copy_(tensor)

    def state_dict(self) -> dict[str, Tensor]:
        return self._mean

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        own = self._module.state_dict()
        self._mean = {name: tensor.to(own[name]) for name, tensor in state.items()}

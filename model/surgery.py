"""What changing a network layer by layer needs: a copy to change, who takes whose output, and whether all is well."""

import copy

import torch
from torch import Tensor, nn

__all__ = ["agree", "keep_in_half", "pairs", "replace", "twin"]

_TOLERANCE = 1e-3
"""Largest difference of logits, over their largest value, that rounding explains."""


def twin(network: nn.Module) -> nn.Module:
    """A copy whose layers may be changed and replaced; it has the very weights of `network`, which may be large."""
    return copy.deepcopy(network, {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())})


@torch.inference_mode()
def pairs(network: nn.Module, example: Tensor, after: tuple[type[nn.Module], ...]) -> dict[str, str]:
    """By the name of each convolution: that of the layer, of one of these types, that is first given its output.

    Found by running `example`, in which both are called once. Whether anything else reads that output is not known.
    """
    names: dict[nn.Module, str] = {module: name for name, module in network.named_modules()}
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}
    taken: dict[nn.Module, nn.Module] = {}
    calls: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, after) and id(inputs[0]) in outputs:
            taken.setdefault(outputs[id(inputs[0])][0], module)

    def keep(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[id(output)] = (module, output)  # the tensor is kept, so that its id stays its own

    watched = [module for module in names if isinstance(module, (nn.Conv2d, *after))]
    hooks = [module.register_forward_pre_hook(count) for module in watched]
    hooks += [module.register_forward_hook(keep) for module in watched if isinstance(module, nn.Conv2d)]
    network(example)
    for hook in hooks:
        hook.remove()
    return {names[first]: names[then] for first, then in taken.items() if calls[first] == calls[then] == 1}


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `network` has its submodule of that name."""
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)


def keep_in_half(network: nn.Module, half: torch.dtype) -> None:
    """Convert, in place and once, the weights that autocast to `half` would convert in every forward."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.to(half)


def agree(network: nn.Module, other: nn.Module, example: Tensor) -> bool:
    """Whether both give the same logits, but for rounding."""
    wanted, got = network(example), other(example)
    return bool((wanted - got).abs().max() <= _TOLERANCE * wanted.abs().max())

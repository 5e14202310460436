"""Batch normalisation folded into the convolution before it: one pass over memory less for each pair."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_TOLERANCE = 1e-3
"""Largest difference of logits, over their largest value, that rounding explains."""


@torch.inference_mode()
def folded(network: nn.Module, example: Tensor) -> nn.Module:
    """A network in evaluation mode that gives what `network` gives, with fewer steps; `network` itself is left alone.

    Pairs are found by running `example`: a normalisation whose input is the very tensor that a convolution returned.
    Whether nothing else reads that tensor is not known, so the outcome is compared, and in doubt `network` is returned.
    """
    quick = copy.deepcopy(network)
    for convolution, name in _pairs(quick, example):
        normalisation = quick.get_submodule(name)
        assert isinstance(normalisation, nn.BatchNorm2d)
        assert normalisation.running_mean is not None
        assert normalisation.running_var is not None
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            normalisation.running_mean,
            normalisation.running_var,
            normalisation.eps,
            normalisation.weight,
            normalisation.bias,
        )
        parent, _, own = name.rpartition(".")
        setattr(quick.get_submodule(parent), own, _rest(normalisation))
    wanted, got = network(example), quick(example)
    same = (wanted - got).abs().max() <= _TOLERANCE * wanted.abs().max()
    return quick if bool(same) else network


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, str]]:
    """Convolutions and the names of the normalisations that take their output, each used once in a forward."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, str]] = []
    calls: dict[nn.Module, int] = {}

    def after(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = (module, output)  # the tensor is kept, so that its id stays its own

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], names[module]))

    names = {module: name for name, module in network.named_modules()}
    hooks = [module.register_forward_hook(after) for module in names if isinstance(module, nn.Conv2d)]
    hooks += [module.register_forward_pre_hook(before) for module in names if isinstance(module, nn.BatchNorm2d)]
    network(example)
    for hook in hooks:
        hook.remove()
    return [(convolution, name) for convolution, name in pairs if calls[convolution] == 1]


def _rest(normalisation: nn.BatchNorm2d) -> nn.Module:
    """What a layer does after normalising: timm's have an activation of their own."""
    rest = [module for name, module in normalisation.named_children() if name in ("drop", "act")]
    return nn.Sequential(*rest) if rest else nn.Identity()

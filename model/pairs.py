"""Which layer takes the very tensor that another one returned, found by running a network once."""

import torch
from torch import Tensor, nn

__all__ = ["pairs"]


@torch.inference_mode()
def pairs(network: nn.Module, example: Tensor, after: tuple[type[nn.Module], ...]) -> dict[str, str]:
    """By the name of each convolution: the name of the layer, of one of these types, that is first given its output.

    Both are called once in a forward of `example`. Whether anything else reads that output too is not known.
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

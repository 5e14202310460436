"""A network as a recording, which goes from layer to layer without the interpreter's lock.

Lanes forward side by side, and beside them threads read, add up and commit. Called layer by layer, a network waits for
the lock a hundred times in a forward, and its core with it. The recording is TorchScript's. torch develops that no
further (since 2.11), but what it offers instead needs a C++ compiler wherever a job runs; so a network that cannot be
recorded, and a torch that can record none any more, are no errors: the network then runs as it is.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["recorded"]

_jit: Any = torch.jit
"""It is untyped."""


@torch.inference_mode()
def recorded(network: nn.Module, examples: Tensor) -> nn.Module:
    """A network on a CPU, in evaluation mode, that gives what `network` gives on inputs of the sides of `examples`.

    It is recorded on the first of the `examples` and compared on all of them, bit by bit: a recording may take for a
    constant what hangs on the number of patches, or on what they show, so there are two or more, and they differ.
    `network` is left alone, and returned where recording fails or the outcome differs.
    """
    try:
        with warnings.catch_warnings():
            # That it is deprecated; and that it takes for constants what follows from the sides, which are.
            warnings.simplefilter("ignore")
            quick = _Recording(network, examples[:1])
        return quick if torch.equal(network(examples), quick(examples)) else network
    except Exception:  # noqa: BLE001: whatever a network does that cannot be recorded
        return network


class _Recording(nn.Module):
    """A graph and the weights that it is given in every forward.

    torch.jit.trace, which hides both, keeps what it recorded until the process ends: 30 MB for each time that
    `landcover` is loaded.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        super().__init__()
        graph, _ = _jit._get_trace_graph(network, (example,))
        self._run = torch._C._create_function_from_graph("forward", graph)
        self._weights = list(_jit._unique_state_dict(network).values())

    def forward(self, x: Tensor) -> Tensor:
        # What torch would make of the graph for one number of patches is no quicker.
        with _jit.optimized_execution(False):
            result: Tensor = self._run(x, *self._weights)
        return result

"""Convolutions as oneDNN likes them on a CPU: weights laid out for it once, and the activation after them inside.

torch's own convolution arranges the weights anew in every forward, passes over its output once more for the activation,
and copies its input where the padding differs from side to side. torch.compile would do without all of that too, but
needs a C++ compiler wherever a job runs; the operators here are those that its code calls.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from model.surgery import agree, pairs, replace, twin

__all__ = ["fused"]

_jit: Any = torch.jit
"""It is untyped."""
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}
"""oneDNN's names of them, and what it wants to know of each."""


@torch.inference_mode()
def fused(network: nn.Module, example: Tensor) -> nn.Module:
    """A network on a CPU, in evaluation mode, that gives what `network` gives on inputs of `example`'s sides, sooner.

    `example` has as many patches as a forward will at most: weights are laid out for each number up to that, and for as
    many threads as torch has now; a forward of more patches, or on more cores, may arrange them anew. `network` itself
    is left alone; it is returned where there is no oneDNN, and where the outcome differs (an activation whose input is
    read by others too).
    """
    if not torch.backends.mkldnn.is_available() or example.dtype != torch.float32:  # type: ignore[no-untyped-call]
        return network
    quick = twin(network)
    activations = pairs(quick, example[:1], tuple(_ACTIVATIONS))  # it keeps what all convolutions return
    for name, shape in _inputs(quick, example).items():
        convolution = quick.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        plan = _plan(convolution, shape)
        if plan is None:
            continue
        activation = quick.get_submodule(activations[name]) if name in activations else nn.Identity()
        if type(activation) in _ACTIVATIONS:  # a class of its own may do something else
            replace(quick, activations[name], nn.Identity())
        replace(quick, name, _Fused(convolution, plan, activation, shape))
    return quick if agree(network, quick, example) else network


@dataclass(frozen=True)
class _Plan:
    """A convolution with the same padding on opposite sides."""

    weight: Tensor
    padding: list[int]
    strides: list[int]
    dilation: list[int]
    groups: int


class _Fused(nn.Module):
    """A convolution and the activation after it, in one call; for inference alone.

    Its buffers are the weights for one patch, for two, and so on: many of them the same tensor.
    """

    def __init__(self, convolution: nn.Conv2d, plan: _Plan, activation: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        name, scalars = _ACTIVATIONS.get(type(activation), ("none", []))
        geometry = plan.padding, plan.strides, plan.dilation, plan.groups
        self._bias = convolution.bias
        self._arguments = *geometry, name, scalars
        most, *rest = shape
        # Its stub leaves out the last argument.
        arranged: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        layouts: dict[bytes, Tensor] = {}
        for count in range(1, most + 1):
            weight = arranged(plan.weight.to_mkldnn(), *geometry, [count, *rest])
            layout = torch.ops.mkldnn._get_mkldnn_serialized_md(weight).numpy().tobytes()
            self.register_buffer(f"weight_{count}", layouts.setdefault(layout, weight))

    def forward(self, x: Tensor) -> Tensor:
        convolved = _script() if _jit.is_tracing() else _convolved
        weights = [weight for weight in self._buffers.values() if weight is not None]
        result: Tensor = convolved(x, weights, self._bias, *self._arguments)
        return result


def _convolved(
    x: Tensor,
    weights: list[Tensor],
    bias: Tensor | None,
    padding: list[int],
    strides: list[int],
    dilation: list[int],
    groups: int,
    activation: str,
    scalars: list[float],
) -> Tensor:
    weight = weights[min(len(x), len(weights)) - 1]
    # Of the type that the operator declares, for TorchScript converts nothing.
    bounds: list[int | float | complex | None] = []
    for scalar in scalars:
        bounds.append(scalar)
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, strides, dilation, groups, activation, bounds, ""
    )
    return result


@functools.cache
def _script() -> Any:
    """The same for a recording, which then chooses by the number of patches in each forward."""
    return _jit.script(_convolved)


def _plan(convolution: nn.Conv2d, shape: tuple[int, ...]) -> _Plan | None:
    """How to compute what `convolution` makes of inputs of this shape; None: it is left to torch."""
    strides, dilation = list(convolution.stride), list(convolution.dilation)
    sides = _padding(convolution, shape)
    if sides is None or convolution.padding_mode != "zeros":
        return None
    weight = convolution.weight
    if any(before != after for before, after in sides):
        # A wider kernel, whose first rows and columns are 0, sees what padding the far sides alone would show it.
        if dilation != [1, 1]:
            return None
        (top, bottom), (left, right) = sides
        weight = pad(weight, (right - left, 0, bottom - top, 0))
    return _Plan(weight, [after for _, after in sides], strides, dilation, convolution.groups)


def _padding(convolution: nn.Conv2d, shape: tuple[int, ...]) -> list[tuple[int, int]] | None:
    """Rows before and after, and columns; never more before than after. None: not known."""
    kind = type(convolution)
    if kind.forward is nn.Conv2d.forward:
        if not isinstance(convolution.padding, str):
            return [(side, side) for side in convolution.padding]
        return [(0, 0), (0, 0)] if convolution.padding == "valid" else None
    if kind.__name__ == "Conv2dSame":  # timm's, after TensorFlow: as many outputs as strides fit into the input
        return [
            _same(side, kernel, stride, dilation)
            for side, kernel, stride, dilation in zip(
                shape[-2:], convolution.kernel_size, convolution.stride, convolution.dilation, strict=True
            )
        ]
    return None


def _same(side: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
    return total // 2, total - total // 2


def _inputs(network: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """By the name of each convolution that is called once: the shape of its input."""
    names: dict[nn.Module, str] = {
        module: name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
    }
    shapes: dict[nn.Module, list[tuple[int, ...]]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes.setdefault(module, []).append(tuple(inputs[0].shape))

    hooks = [module.register_forward_pre_hook(note) for module in names]
    network(example)
    for hook in hooks:
        hook.remove()
    return {names[module]: found[0] for module, found in shapes.items() if len(found) == 1}

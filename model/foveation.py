"""F_theta, the network that looks at the low-resolution image and says how much of the image each place needs to see.

Jin et al., "Foveation for Segmentation of Ultra-High Resolution Images", arXiv 2007.15124, section 3.2; the variants
are those of the authors' code. Letters: N images, C bands, D fields of view, Y X cells.
"""

from collections.abc import Mapping
from typing import Literal, Self

from torch import Tensor, nn
from torch.nn import functional

from foveate.schema import FoveationCard
from model.networks.blocks import he_normal_weight

__all__ = ["AUTHORS_NAMES", "REACH", "Activation", "FoveationModule", "Norm", "from_authors"]

Activation = Literal["relu6", "relu", "leaky_relu"]
Norm = Literal["bn", "bn1", "instance", "no_normalise"]

AUTHORS_NAMES = {
    "fov_expand_1": "expand1",
    "fov_expand_2": "expand2",
    "fov_expand_3": "expand3",
    "fov_expand_4": "expand4",
    "fov_squeeze_1": "squeeze",
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
}
"""The layers' names in the authors' checkpoints, and here."""

_NORM_BIAS = 1e-4
_SIDES = {0: (3, 3, 3), 1: (3, 3, 3, 3, 3), 2: (3, 5, 7)}
"""Kernel sides of all convolutions, the first one first, by `deep_fov`."""
REACH = sum(side // 2 for side in _SIDES[0])
"""`FoveationModule.reach` of every module that a card describes."""


class FoveationModule(nn.Module):
    """Low-resolution image (N, C, Y, X) float32 -> distribution over the fields of view (N, D, Y, X), summing to 1.

    With `log_probabilities` (an attribute, may be switched at any time) the output is the logarithm of that. `hidden`
    is the width of the hidden layers, 8 D in the paper. `deep_fov` 1 adds two convolutions without norm, 2 takes larger
    kernels. Norms that a variant leaves unused do not exist in the module.
    """

    def __init__(
        self,
        in_channels: int,
        n_fovs: int,
        *,
        hidden: int | None = None,
        activation: Activation = "relu6",
        norm: Norm = "bn",
        deep_fov: Literal[0, 1, 2] = 0,
        log_probabilities: bool = False,
    ) -> None:
        super().__init__()
        width = 8 * n_fovs if hidden is None else hidden
        first, second, *extra, last = _SIDES[deep_fov]
        self.log_probabilities = log_probabilities
        self.activation = _activation(activation)
        self.expand1 = _convolution(in_channels, width, first)
        self.norm1 = _norm(norm, width) if norm != "no_normalise" else nn.Identity()
        self.expand2 = _convolution(width, width, second)
        everywhere = norm in ("bn", "instance")
        self.norm2 = _norm(norm, width) if everywhere else nn.Identity()
        self.expand3 = _convolution(width, width, extra[0]) if extra else None
        self.expand4 = _convolution(width, width, extra[1]) if extra else None
        self.squeeze = _convolution(width, n_fovs, last)
        self.norm3 = _norm(norm, n_fovs) if everywhere else nn.Identity()

    @classmethod
    def from_card(cls, card: FoveationCard, in_channels: int, n_fovs: int) -> Self:
        """The module that a bundle's card describes, freshly initialised."""
        return cls(in_channels, n_fovs, hidden=card.hidden, activation=card.activation, norm=card.norm)

    @property
    def reach(self) -> int:
        """Cells around a location that its output depends on; with instance norm, on all others too."""
        convolutions = (layer for layer in self.modules() if isinstance(layer, nn.Conv2d))
        return sum(layer.kernel_size[0] // 2 for layer in convolutions)

    def forward(self, image_NCYX: Tensor, inside_N1YX: Tensor | None = None) -> Tensor:
        """`inside_N1YX` (1 in the image, 0 beyond its border) is for parts of an image that reach out of it: what lies
        beyond is 0 to every layer, as it is to a convolution that pads the whole image."""
        inside = 1.0 if inside_N1YX is None else inside_N1YX
        hidden = self.activation(self.norm1(self.expand1(image_NCYX * inside))) * inside
        hidden = self.activation(self.norm2(self.expand2(hidden))) * inside
        for extra in (self.expand3, self.expand4):
            if extra is not None:
                hidden = self.activation(extra(hidden)) * inside
        logits_NDYX = self.norm3(self.squeeze(hidden))
        if self.log_probabilities:
            return functional.log_softmax(logits_NDYX, dim=1)
        return functional.softmax(logits_NDYX, dim=1)


def from_authors(state: Mapping[str, Tensor], module: FoveationModule) -> dict[str, Tensor]:
    """A state dict of the authors' code under the names of `module`; entries that `module` does not use are left out.

    A tensor that `module` needs and the authors' state lacks (their files do not count batches) keeps its value.
    """
    renamed = module.state_dict()
    for name, tensor in state.items():
        layer, _, leaf = name.partition(".")
        ours = f"{AUTHORS_NAMES[layer]}.{leaf}"
        if ours in renamed:
            renamed[ours] = tensor
    return renamed


class _InstanceNorm(nn.InstanceNorm2d):
    """Instance norm that also takes a single cell: normalised, its one value is 0."""

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-2:] == (1, 1):
            return self.bias[:, None, None].expand_as(input)
        return super().forward(input)


def _convolution(in_channels: int, out_channels: int, side: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, side, padding=side // 2, bias=False)
    he_normal_weight(layer.weight)
    return layer


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "instance":
        return _InstanceNorm(channels, affine=True)
    layer = nn.BatchNorm2d(channels)
    nn.init.constant_(layer.bias, _NORM_BIAS)
    return layer


def _activation(name: Activation) -> nn.Module:
    if name == "relu":
        return nn.ReLU()
    return nn.ReLU6() if name == "relu6" else nn.LeakyReLU(0.01)

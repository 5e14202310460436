"""UPerNet on ResNet-50: the paper's network for DeepGlobe.

Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding"; shapes and initialisation by
foveation-method.md, section 7. Letters: N patches, C channels, H W pixels, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.blocks import conv_norm, enlarged, he_normal
from model.networks.resnet import ResNet50

__all__ = ["UPerNet", "UPerNetDecoder"]

_MOMENTUM = 0.001
_POOLS = (1, 2, 3, 6)


class UPerNetDecoder(nn.Module):
    """Pyramid pooling of the coarsest map, a feature pyramid above it, and all of its levels fused at stride 4."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        *finer, coarsest = ResNet50.CHANNELS
        self.pooled = nn.ModuleList(conv_norm(coarsest, width, 1, momentum=_MOMENTUM) for _ in _POOLS)
        self.bottleneck = conv_norm(coarsest + len(_POOLS) * width, width, 3, momentum=_MOMENTUM)
        self.laterals = nn.ModuleList(conv_norm(channels, width, 1, momentum=_MOMENTUM) for channels in finer)
        self.smoothers = nn.ModuleList(conv_norm(width, width, 3, momentum=_MOMENTUM) for _ in finer)
        self.fusion = conv_norm(width * len(ResNet50.CHANNELS), width, 3, momentum=_MOMENTUM)
        self.classifier = nn.Conv2d(width, classes, 1)
        he_normal(self, norm_bias=1e-4)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Four (N, C, H, W), finest first, to logits (N, K, H, W) of the finest one's size."""
        *finer, coarsest = maps
        x = self.bottleneck(torch.cat([coarsest, *self._pyramid(coarsest)], dim=1))
        levels = [x]
        for lateral, smoother, level in reversed(list(zip(self.laterals, self.smoothers, finer, strict=True))):
            y = lateral(level)
            x = y + enlarged(x, y)
            levels.insert(0, smoother(x))
        logits: Tensor = self.classifier(self.fusion(torch.cat([enlarged(level, levels[0]) for level in levels], 1)))
        return logits

    def _pyramid(self, coarsest: Tensor) -> list[Tensor]:
        # Enlarged before the convolution, as the authors do: the norm then sees as many samples as the map has.
        pools = zip(_POOLS, self.pooled, strict=True)
        return [layer(enlarged(functional.adaptive_avg_pool2d(coarsest, side), coarsest)) for side, layer in pools]


class UPerNet(nn.Module):
    """UPerNet on ResNet-50; `width` 512 is the paper's decoder, 256 its "lite" variant."""

    def __init__(self, channels: int, classes: int, width: int = 512) -> None:
        super().__init__()
        self.encoder = ResNet50(channels)
        self.decoder = UPerNetDecoder(classes, width)

    def forward(self, patches_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) float32 to logits (N, K, H, W); in training mode (N, K, H / 4, W / 4), rounded up."""
        logits: Tensor = self.decoder(self.encoder(patches_NCHW))
        return logits if self.training else enlarged(logits, patches_NCHW)

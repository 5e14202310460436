"""ResNet-50 with a deep stem: the encoder of the paper's network for DeepGlobe (foveation-method.md, section 7).

It is timm's `resnet50s`, names included; timm's plain `resnet50` has another stem and agrees from the first block's
3x3 convolution on. Letters: N patches, C channels, H W pixels.
"""

from torch import Tensor, nn
from torch.nn import functional

from model.networks.blocks import Bottleneck, he_normal

__all__ = ["PLAIN_STEM_DIFFERS", "ResNet50"]

PLAIN_STEM_DIFFERS = ("conv1.", "bn1.", "layer1.0.conv1.", "layer1.0.downsample.0.")
"""How the names begin of what a ResNet-50 without the deep stem lacks or holds in another shape."""

_MOMENTUM = 0.001
_DEPTHS = (3, 4, 6, 3)


class ResNet50(nn.Module):
    """Three 3x3 convolutions, a max-pool, and bottlenecks 3, 4, 6, 3 with the stride in the 3x3; not dilated."""

    CHANNELS = (256, 512, 1024, 2048)
    """Of the four maps that come out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(channels, 64, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(64, momentum=_MOMENTUM),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64, momentum=_MOMENTUM),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 128, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(128, momentum=_MOMENTUM)
        self.layer1 = _layer(128, 64, _DEPTHS[0], stride=1)
        self.layer2 = _layer(256, 128, _DEPTHS[1], stride=2)
        self.layer3 = _layer(512, 256, _DEPTHS[2], stride=2)
        self.layer4 = _layer(1024, 512, _DEPTHS[3], stride=2)
        he_normal(self, norm_bias=0.0)

    def forward(self, patches_NCHW: Tensor) -> list[Tensor]:
        """(N, C, H, W) to four maps of `CHANNELS` at strides 4, 8, 16, 32, sizes rounded up."""
        x = functional.relu(self.bn1(self.conv1(patches_NCHW)), inplace=True)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


def _layer(channels: int, width: int, depth: int, *, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, width, momentum=_MOMENTUM, stride=stride)
    rest = (Bottleneck(width * Bottleneck.EXPANSION, width, momentum=_MOMENTUM) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)
